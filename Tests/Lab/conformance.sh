# The conformance suite on a virtio-net function and on an Intel 82574L, with the kernel's driver at the far end.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
far=$(interface $peer)
# Nothing but the suite's frames on the wire.
echo 1 > "/proc/sys/net/ipv6/conf/$far/disable_ipv6"
ip link set "$far" mtu 9000 up
bundle=$(dirname "$martlet")/../debug/martletPackageTests.xctest
# The virtio-net function offers packed rings: it is tried with them, and with split ones.
for try in $nic, $nic,packed 0000:00:05.0,; do
  function=${try%%,*}
  check "bind $function" $martlet bind $function
  export MARTLET_LAB_NIC=$function MARTLET_LAB_PEER=$far MARTLET_LAB_WITHOUT=${try#*,}
  timeout 280 "$bundle" --testing-library swift-testing --filter ConformanceLabTests > /tmp/tests.log 2>&1
  code=$?
  grep -E '^not possible' /tmp/tests.log
  sed -n "s/^conforms: /ok ${function#0000:}${MARTLET_LAB_WITHOUT:+ without $MARTLET_LAB_WITHOUT}: /p" /tmp/tests.log
  [ $code = 0 ] || tail -40 /tmp/tests.log
  check "$function conforms" test $code = 0
  check "unbind $function" $martlet unbind $function
done
check "no IOMMU faults" test "$(iommu_faults)" = 0
exit 0
