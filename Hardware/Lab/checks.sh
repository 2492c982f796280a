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
interface() { ls "/sys/bus/pci/devices/$1/virtio"*/net 2> /dev/null | head -1; }
driver() { basename "$(readlink "/sys/bus/pci/devices/$1/driver" || echo none)"; }
# The kernel's end of the wire, in a namespace of its own.
make_peer() {
  ip netns add peer
  ip link set "$(interface $peer)" netns peer name peer0
  ip -n peer addr add 10.0.0.1/24 dev peer0
  ip -n peer link set lo up
  ip -n peer link set peer0 up
}
