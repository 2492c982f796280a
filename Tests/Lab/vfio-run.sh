# A virtio-net function under real VFIO behind a real (emulated) IOMMU.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
split="--without packed"
. "$(dirname "$0")/../../Hardware/Lab/nic-run.sh"
