# Real VFIO behind a real (emulated) IOMMU: bind, run with lwIP, ping, fetch, give the NIC back.
# The peer is the guest's own kernel on 00:04.0, in a network namespace.
martlet=$MARTLET
nic=0000:00:03.0
ok() { echo "ok $1"; }
fail() { echo "FAIL $1"; }
check() { local name=$1; shift; if "$@"; then ok "$name"; else fail "$name"; fi; }

interface() { ls "/sys/bus/pci/devices/$1/virtio"*/net 2> /dev/null | head -1; }
ip netns add peer
ip link set "$(interface 0000:00:04.0)" netns peer name peer0
ip -n peer addr add 10.0.0.1/24 dev peer0
ip -n peer link set lo up
ip -n peer link set peer0 up

own=$(interface $nic)
check "bind" $martlet bind $nic
check "bound to vfio-pci" test "$(basename "$(readlink /sys/bus/pci/devices/$nic/driver)")" = vfio-pci

run() {
  local mode=$1
  $martlet run --device $nic --stack lwip --address 10.0.0.2/24 --mode "$mode" > /tmp/run.log 2>&1 &
  runner=$!
  for _ in $(seq 100); do
    grep -q 'running until' /tmp/run.log && break
    kill -0 $runner 2> /dev/null || break
    sleep 0.1
  done
}

for mode in adaptive poll interrupt; do
  run $mode
  ip netns exec peer ping -n -q -c 100 -i 0.02 -W 5 10.0.0.2 > /tmp/ping.log 2>&1
  tail -3 /tmp/ping.log
  check "$mode: ping 100 of 100" grep -q '100 received' /tmp/ping.log
  size=20000000
  [ $mode = adaptive ] || size=2000000
  got=$(ip netns exec peer curl -sS --max-time 100 http://10.0.0.2/bytes/$size | sha256sum)
  wanted=$($martlet pattern $size | sha256sum)
  check "$mode: $size bytes with the right checksum" test "$got" = "$wanted"
  kill -INT $runner
  wait $runner
  check "$mode: ends with 0" test $? = 0
  cat /tmp/run.log | tail -30
  interrupts=$(sed -n 's/^ *host_interrupts //p' /tmp/run.log)
  [ $mode = poll ] || check "$mode: interrupts came" test "${interrupts:-0}" -gt 0
  [ $mode = poll ] && check "poll: no interrupts" test "${interrupts:-0}" = 0
done

check "unbind" $martlet unbind $nic
check "back with its driver" test "$(basename "$(readlink /sys/bus/pci/devices/$nic/driver)")" = virtio-pci
sleep 1
own=$(interface $nic)
ip addr add 10.0.0.3/24 dev "$own"
ip link set "$own" up
check "the kernel's driver works again" ping -n -q -c 5 -i 0.2 -W 5 10.0.0.1
check "no IOMMU faults" test "$(dmesg | grep -c 'DMAR.*fault')" = 0
dmesg | grep -i 'fault' | head -5
exit 0
