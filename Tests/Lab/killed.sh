# kill -9 of each process on a real function: nothing is left over, and the function can be driven again.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
check "bind" $martlet bind $nic
start() {
  $martlet run --device $nic --stack lwip --address 10.0.0.2/24 > /tmp/run.log 2>&1 &
  runner=$!
  for _ in $(seq 300); do grep -q 'running until' /tmp/run.log && break; sleep 0.1; done
}
answers() { ip netns exec peer ping -n -q -c 20 -i 0.05 -W 5 10.0.0.2 | grep '20 received'; }
for victim in martlet martlet-host martlet-stack; do
  start
  check "$victim: answers before" answers
  [ $victim = martlet ] && check "bus mastering is on before" test $((0x$(od -An -tx1 -j4 -N1 /sys/bus/pci/devices/$nic/config | tr -d ' ') & 4)) = 4
  kill -KILL "$(pgrep -x $victim -o)"
  for _ in $(seq 50); do kill -0 $runner 2> /dev/null || break; sleep 0.1; done
  if kill -0 $runner 2> /dev/null; then
    check "$victim: what is left goes on" answers
    kill -INT $runner
  fi
  wait $runner 2> /dev/null
  cat /tmp/run.log | tail -5
  sleep 0.5
  check "$victim: nothing is left running" test -z "$(pgrep martlet)"
  check "$victim: bus mastering is off" test $((0x$(od -An -tx1 -j4 -N1 /sys/bus/pci/devices/$nic/config | tr -d ' ') & 4)) = 0
  check "$victim: huge pages are back" test "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages)" = "$(cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages)"
done
start
check "answers again" answers
kill -INT $runner
wait $runner
check "ends with 0" test $? = 0
check "no IOMMU faults" test "$(dmesg | grep -c 'DMAR.*fault')" = 0
check "unbind" $martlet unbind $nic
exit 0
