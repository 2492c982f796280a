# The driver to learn from on QEMU's edu function, under the kernel's VFIO: its engines, its interrupt, its DMA. One fault
# is wanted.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
edu=0000:00:06.0
# Martlet drives no network with it, so that it has to be told.
says "bind" 0 "vfio-pci" $martlet bind $edu --force
export MARTLET_LAB_EDU=$edu
# Left in .build/lab/results: Tests/Fixtures/edu-qemu.trace is one of these.
export MARTLET_LAB_TRACE=/results/edu.trace
bundle=$(dirname "$martlet")/../debug/martletPackageTests.xctest
timeout 300 "$bundle" --testing-library swift-testing --filter EduLabTests > /tmp/tests.log 2>&1
code=$?
tail -40 /tmp/tests.log
sed -n 's/^[^ ]* Test \([A-Za-z]*()\) passed.*/ok \1/p; s/^[^ ]* Test \([A-Za-z]*()\) failed.*/FAIL \1/p' /tmp/tests.log
check "the tests' end" test $code = 0
check "all faults are the ones wanted" test -z "$(dmesg | grep 'DMAR.*fault addr' | grep -v 'Request device .00:06.0. fault addr 0x2000000')"
check "the run's trace is there" grep -q '^martlet-trace 1$' $MARTLET_LAB_TRACE
check "unbind" $martlet unbind $edu
exit 0
