# The kernel's own protocols behind a driver in user space: every program of the guest can use the NIC.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
check "bind" $martlet bind $nic
$martlet run --device $nic --stack kernel --address 10.0.0.2/24 > /tmp/run.log 2>&1 &
runner=$!
for _ in $(seq 100); do grep -q 'running until' /tmp/run.log && break; sleep 0.1; done
check "its interface has the address" sh -c "ip -4 addr show | grep -F 10.0.0.2/24"
check "ping from the peer" sh -c "ip netns exec peer ping -n -q -c 50 -i 0.02 -W 5 10.0.0.2 | grep '50 received'"
check "ping to the peer" sh -c "ping -n -q -c 50 -i 0.02 -W 5 10.0.0.1 | grep '50 received'"
kill -INT $runner
wait $runner
check "ends with 0" test $? = 0
tail -20 /tmp/run.log
check "its interface is gone" sh -c "! ip -4 addr show | grep -F 10.0.0.2/24"
check "no IOMMU faults" test "$(dmesg | grep -c 'DMAR.*fault')" = 0
check "unbind" $martlet unbind $nic
exit 0
