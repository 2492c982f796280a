# For jobs: what they check becomes a line "ok NAME" or "FAIL NAME", which lab.sh counts.
martlet=$MARTLET
nic=0000:00:03.0
peer=0000:00:04.0
log=/tmp/output
ok() { echo "ok $1"; }
fail() { echo "FAIL $1"; tail -20 $log; }
check() { local name=$1; shift; if "$@" > $log 2>&1; then ok "$name"; else fail "$name"; fi; }
# The command ends with this code and says this; what it says on standard error is one line at most.
says() {
  local name=$1 code=$2 text=$3
  shift 3
  "$@" > $log 2> /tmp/errors
  local got=$? lines
  lines=$(wc -l < /tmp/errors)
  cat /tmp/errors >> $log
  if [ $got = "$code" ] && [ "$lines" -le 1 ] && grep -qF -- "$text" $log; then
    ok "$name"
  else
    echo "code $got, $lines lines of errors, wanted code $code and: $text" >> $log
    fail "$name"
  fi
}
interface() { ls -d "/sys/bus/pci/devices/$1/"{virtio*/,}net/* 2> /dev/null | head -1 | xargs -r basename; }
driver() { basename "$(readlink "/sys/bus/pci/devices/$1/driver" || echo none)"; }
# The kernel's end of the wire, in a namespace of its own.
make_peer() {
  ip netns add peer
  ip link set "$(interface $peer)" netns peer name peer0
  ip -n peer addr add 10.0.0.1/24 dev peer0
  ip -n peer link set lo up
  ip -n peer link set peer0 up
}
iommu_faults() { dmesg | grep -c 'DMAR.*fault addr'; }
# Starts a command that ends with `martlet run` and its options, and waits until it runs.
start() {
  "$@" > /tmp/run.log 2>&1 &
  runner=$!
  for _ in $(seq 150); do
    grep -q 'running until' /tmp/run.log && return 0
    kill -0 $runner 2> /dev/null || return 1
    sleep 0.1
  done
  return 1
}
stop() {
  kill -INT $runner
  wait $runner
}
# A counter of the last run, empty where it is 0.
counter() { sed -n "s/^ *$1 //p" /tmp/run.log | tail -1; }
# So many packets, one each 20 ms or as many seconds as the second argument says.
peer_ping() {
  ip netns exec peer ping -n -q -c "$1" -i "${2:-0.02}" -W 5 10.0.0.2 > /tmp/ping.log 2>&1
  tail -3 /tmp/ping.log
  grep -q "$1 received" /tmp/ping.log
}
# The checksum of what the stack serves, against the pattern's.
peer_fetch() {
  local got wanted
  got=$(ip netns exec peer curl -sS --max-time 100 "http://10.0.0.2/bytes/$1" | sha256sum)
  wanted=$($martlet pattern "$1" | sha256sum)
  [ "$got" = "$wanted" ]
}
