# devices, doctor, bind and unbind on functions behind an IOMMU: what they find, refuse, undo, and say.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
own=$(interface $nic)
other=$(interface $peer)

says "doctor is all green" 0 " 0 failed, 0 warnings" $martlet doctor
says "doctor knows the IOMMU" 0 "dmar0" $martlet doctor --json
says "devices names the function" 0 "$nic  Red Hat, Inc. Virtio 1.0 network device [1af4:1041]  virtio-pci $own  group" $martlet devices
says "an idle function is free" 0 "free, virtio-net" $martlet devices

says "a malformed address" 2 "neither a PCI address" $martlet bind 00:03
says "a missing function" 2 "there is no PCI function 0000:00:17.0" $martlet bind 00:17.0
says "an interface without function" 2 "is on no PCI function" $martlet bind lo
says "a missing user" 2 "there is no user nobody-at-all" $martlet bind $nic --user nobody-at-all
says "a function without driver" 1 "Martlet has no driver for" $martlet bind 00:1f.0
says "run on a malformed address" 2 "neither a PCI address" $martlet run --device 00:03 --seconds 1
says "run on a missing function" 2 "there is no PCI function" $martlet run --device 00:17.0 --seconds 1
says "run takes short addresses" 1 "martlet bind $nic" $martlet run --device 00:03.0 --seconds 1
says "run on what is not bound" 1 "martlet bind $nic" $martlet run --device $nic --seconds 1
says "unbind what is not bound" 1 "nothing to give back" $martlet unbind $nic

ip addr add 10.9.0.1/24 dev "$own"
ip link set "$own" up
says "an interface in use is refused" 1 "$own has the address 10.9.0.1" $martlet bind $nic
check "and stays where it is" test "$(driver $nic)" = virtio-pci
says "unless forced" 0 "virtio-pci -> vfio-pci" $martlet bind "$own" --force
says "it is given back" 0 "vfio-pci -> virtio-pci" $martlet unbind $nic
check "to its driver" test "$(driver $nic)" = virtio-pci

ip link set "$(interface $nic)" down
says "bind" 0 "virtio-pci -> vfio-pci" $martlet bind $nic
says "bind again changes nothing" 0 "already" $martlet bind $nic
says "devices -v shows what driver and device agree on" 0 "EVENT_IDX VERSION_1 ACCESS_PLATFORM" $martlet devices -v
says "doctor looks at the function" 0 "$nic permission" $martlet doctor $nic

says "without permission the node is named" 1 "no permission for /dev/vfio/" \
  setpriv --reuid=nobody --regid=nogroup --clear-groups $martlet run --device $nic --seconds 1
says "without root nothing is bound" 1 "run it as root" \
  setpriv --reuid=nobody --regid=nogroup --clear-groups $martlet bind $peer
says "without root nothing is given back" 1 "run it as root" \
  setpriv --reuid=nobody --regid=nogroup --clear-groups $martlet unbind $nic
check "and all is as it was" test "$(driver $nic) $(driver $peer)" = "vfio-pci virtio-pci"

$martlet run --device $nic --seconds 60 > /tmp/run.log 2>&1 &
runner=$!
for _ in $(seq 300); do grep -q 'running until' /tmp/run.log && break; sleep 0.1; done
says "a function in use is marked" 0 "* $nic" $martlet devices
says "a second run is refused" 1 "is in use" $martlet run --device $nic --seconds 1
says "what runs is not given back" 1 "holds its VFIO group" $martlet unbind $nic
kill -KILL $runner
wait $runner 2> /dev/null
sleep 1
check "nothing is left running" test -z "$(pgrep martlet)"
# The record outlives whoever was killed.
says "after a crash it is given back too" 0 "vfio-pci -> virtio-pci" $martlet unbind $nic
check "no record is left" test -z "$(ls /run/martlet/bound 2> /dev/null)"
exit 0
