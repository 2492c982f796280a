# The conformance suite on a virtio-net function and on an Intel 82574L, with the kernel's driver at the far end.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
far=$(interface $peer)
# Nothing but the suite's frames on the wire.
echo 1 > "/proc/sys/net/ipv6/conf/$far/disable_ipv6"
ip link set "$far" mtu 9000 up
bundle=$(dirname "$martlet")/../debug/martletPackageTests.xctest
for function in $nic 0000:00:05.0; do
  check "bind $function" $martlet bind $function
  export MARTLET_LAB_NIC=$function MARTLET_LAB_PEER=$far
  timeout 200 "$bundle" --testing-library swift-testing --filter ConformanceLabTests > /tmp/tests.log 2>&1
  code=$?
  grep -E '^not possible' /tmp/tests.log
  sed -n "s/^conforms: /ok ${function#0000:}: /p" /tmp/tests.log
  [ $code = 0 ] || tail -40 /tmp/tests.log
  check "$function conforms" test $code = 0
  check "unbind $function" $martlet unbind $function
done
check "no IOMMU faults" test "$(iommu_faults)" = 0
exit 0
