# A driver that names memory outside everything that is mapped: the IOMMU stops the device, the supervisor says so, the
# guest goes on, and the next run works.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
$martlet bind $nic
check "starts" start $martlet run --device $nic --address 10.0.0.2/24 --inject dma-outside
ip netns exec peer ping -n -q -c 5 -i 0.1 -W 1 10.0.0.2 > /dev/null
sleep 1
stop
tail -30 /tmp/run.log
dmesg | grep DMAR | tail -5
check "the IOMMU has logged a fault" test "$(iommu_faults)" -gt 0
check "the supervisor reports it" grep -q 'the IOMMU stopped the device' /tmp/run.log
check "and counts it" test "$(counter iommu_faults)" -gt 0
before=$(iommu_faults)
check "the next run starts" start $martlet run --device $nic --address 10.0.0.2/24
check "and works" peer_ping 20
stop
check "without a fault" test "$(iommu_faults)" = "$before"
exit 0
