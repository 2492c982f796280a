# 50 times the driver host of a real function is killed while 16 connections of three instances run over it.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
check "bind" $martlet bind $nic
report=/tmp/restart.log
bash -c "python3 '$(dirname "$0")/../../Benchmarks/Restart/restart.py' --kills 50 --rate 20000 --cut --pause 0.5 --device $nic --enter 'ip netns exec peer' --programs '$(dirname "$MARTLET")'" > $report 2>&1
code=$?
cat $report
check "50 kills, no connection lost, no byte wrong, no segment missing" test $code = 0
check "no IOMMU faults" test "$(iommu_faults)" = 0
check "bus mastering is off" test $((0x$(od -An -tx1 -j4 -N1 /sys/bus/pci/devices/$nic/config | tr -d ' ') & 4)) = 0
check "unbind" $martlet unbind $nic
exit 0
