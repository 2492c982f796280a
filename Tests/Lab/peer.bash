# What the jobs share: the function for Martlet, and the guest's own kernel on the other one as its peer.
martlet=$MARTLET
nic=0000:00:03.0
ok() { echo "ok $1"; }
fail() { echo "FAIL $1"; }
check() {
  local name=$1
  shift
  if "$@"; then ok "$name"; else fail "$name"; fi
}
interface() { ls "/sys/bus/pci/devices/$1/virtio"*/net 2> /dev/null | head -1; }
driver_of() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")"; }
iommu_faults() { dmesg | grep -c 'DMAR.*fault addr'; }

ip netns add peer
ip link set "$(interface 0000:00:04.0)" netns peer name peer0
ip -n peer addr add 10.0.0.1/24 dev peer0
ip -n peer link set lo up
ip -n peer link set peer0 up

# Starts `martlet run` with further words before it, such as setpriv's, and waits until it runs.
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
counter() { sed -n "s/^ *$1 //p" /tmp/run.log | tail -1; }
peer_ping() { ip netns exec peer ping -n -q -c "$1" -i "${2:-0.02}" -W 5 10.0.0.2 > /tmp/ping.log 2>&1; tail -3 /tmp/ping.log; grep -q "$1 received" /tmp/ping.log; }
# The checksum of what the stack serves, against the pattern's.
peer_fetch() {
  local got wanted
  got=$(ip netns exec peer curl -sS --max-time 100 "http://10.0.0.2/bytes/$1" | sha256sum)
  wanted=$($martlet pattern "$1" | sha256sum)
  [ "$got" = "$wanted" ]
}
