# Sourced by jobs that set $nic: doctor, bind, run with lwIP in each mode, give the NIC back to the kernel.
make_peer

check "devices lists both" test "$($martlet devices | grep -c 'Virtio')" -ge 2
former=$(driver $nic)
check "bind" $martlet bind $nic
check "bound to vfio-pci" test "$(driver $nic)" = vfio-pci
$martlet doctor ${nic#0000:} > /tmp/doctor.log
green=$?
sed 's/^/  /' /tmp/doctor.log
check "doctor: all green" test $green = 0

for mode in adaptive poll interrupt; do
  # Rings as the device offers them, and once split ones where it is asked for.
  options=
  [ $mode = poll ] && options=${split:-}
  check "$mode: starts" start $martlet run --device $nic --stack lwip --address 10.0.0.2/24 --mode $mode $options
  if [ -n "${split:-}" ]; then
    check "$mode: packed rings where they are not left alone" \
      test "$(grep -c RING_PACKED /tmp/run.log)" = $([ -z "$options" ] && echo 1 || echo 0)
  fi
  $martlet status > /tmp/status.log
  check "$mode: the driver host is confined" grep -q ': confined' /tmp/status.log
  check "$mode: ping 100 of 100" peer_ping 100
  size=20000000
  [ $mode = adaptive ] || size=2000000
  check "$mode: $size bytes with the right checksum" peer_fetch $size
  check "$mode: ends with 0" stop
  cat /tmp/run.log | tail -20
  if [ $mode = poll ]; then
    check "poll: no interrupts" test "$(counter q0_interrupts)" = ""
  else
    check "$mode: interrupts came" test "$(counter q0_interrupts)" -gt 0
  fi
  check "$mode: nothing was copied" test "$(counter stack_tx_copied_bytes)$(counter stack_rx_copied_bytes)" = ""
done
cat /tmp/status.log
check "IOVA = virtual address: starts" start $martlet run --device $nic --address 10.0.0.2/24 --iova virtual
check "IOVA = virtual address: 2 MB with the right checksum" peer_fetch 2000000
check "IOVA = virtual address: ends with 0" stop

check "unbind" $martlet unbind $nic
check "back with its driver" test "$(driver $nic)" = "$former"
sleep 1
own=$(interface $nic)
ip addr add 10.0.0.3/24 dev "$own"
ip link set "$own" up
check "a function whose interface has an address is refused" bash -c "! $martlet bind $nic"
# A link takes its time to come up.
for _ in $(seq 50); do
  [ "$(cat "/sys/class/net/$own/carrier" 2> /dev/null)" = 1 ] && ping -n -q -c 1 -W 1 10.0.0.1 > /dev/null && break
  sleep 0.2
done
check "the kernel's driver works again" ping -n -q -c 5 -i 0.2 -W 5 10.0.0.1
check "no IOMMU faults" test "$(iommu_faults)" = 0
exit 0
