# The kernel's VFIO and the IOMMU, driven by the test bundle on the function itself. The faults are wanted.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
check "bind" $martlet bind $nic
export MARTLET_LAB_FUNCTION=$nic
bundle=$(dirname "$martlet")/../debug/martletPackageTests.xctest
timeout 300 "$bundle" --testing-library swift-testing --filter LabTests > /tmp/tests.log 2>&1
code=$?
tail -40 /tmp/tests.log
sed -n 's/^[^ ]* Test \([A-Za-z]*()\) passed.*/ok \1/p; s/^[^ ]* Test \([A-Za-z]*()\) failed.*/FAIL \1/p' /tmp/tests.log
check "the tests' end" test $code = 0
check "the fault is in the kernel's log" grep -q 'Request device .00:03.0. fault addr 0x20000000' <(dmesg)
check "unbind" $martlet unbind $nic
exit 0
