# A hostile driver on a real function: what of the kernel's VFIO is not the driver's is refused, and the IOMMU stops what it
# makes the device do. The attempts that need no device are in Tests/System/escape.sh.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
escape=$(dirname "$martlet")/martlet-escape
check "bind" $martlet bind $nic
# attempt NAME EXPECTATION
attempt() {
  $martlet run --host "$escape" --device $nic --address 10.0.0.2/24 --without "$1" --seconds 20 --failures 1 < /dev/null > /tmp/attempt.log 2>&1
  check "$1: $2" grep -F "$2" /tmp/attempt.log
  grep -qF "$2" /tmp/attempt.log || tail -5 /tmp/attempt.log
}
killed="was killed for a system call that its filter does not allow"
for name in ioctl-map-dma ioctl-vfio-feature ioctl-vfio-other ioctl-tiocsti; do attempt $name "$killed: ioctl("; done
attempt pread-arena "$killed: pread64("
attempt mmap-exec-arena "$killed: mmap("
attempt mmap-arena "$killed: mmap("
attempt openat "$killed: openat("
attempt start:openat "$killed: openat("
attempt start:ioctl-map-dma "$killed: ioctl("
attempt start:mmap-exec-arena "$killed: mmap("
check "no IOMMU faults so far" test "$(iommu_faults)" = 0
# A device that is told to reach outside what is mapped for it.
check "starts" start $martlet run --device $nic --address 10.0.0.2/24 --inject dma-outside
ip netns exec peer ping -n -q -c 5 -i 0.1 -W 1 10.0.0.2 > /dev/null
sleep 1
stop
check "the IOMMU has stopped the device" test "$(iommu_faults)" -gt 0
before=$(iommu_faults)
check "the next run starts" start $martlet run --device $nic --address 10.0.0.2/24
$martlet status > /tmp/status.log
check "the driver host is confined" grep -q ': confined' /tmp/status.log
cat /tmp/status.log
check "and works" peer_ping 20
stop
check "without a fault" test "$(iommu_faults)" = "$before"
check "unbind" $martlet unbind $nic
exit 0
