# An Intel 82574L under real VFIO behind a real (emulated) IOMMU, against the kernel's virtio-net.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
nic=0000:00:05.0
. "$(dirname "$0")/../../Hardware/Lab/nic-run.sh"
