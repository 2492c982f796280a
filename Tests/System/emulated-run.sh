# The whole system with the emulated device ends by itself, with every check passed and nothing left over.
set -e
martlet=.build/release/martlet
before=$(cat /proc/sys/vm/nr_hugepages)
# agrees OPTION...: a run in which all counters agree at the end; else what it said.
agrees() {
  local out
  out=$($martlet run "$@" < /dev/null 2>&1) && grep "counters agree" <<< "$out" && return
  echo "martlet run $*:"
  echo "$out"
  return 1
}
for mode in adaptive poll yield interrupt; do
  out=$($martlet run --fetch 20000000 --mode $mode < /dev/null 2>&1) || { echo "$out"; exit 1; }
  echo "$out"
  grep -q "100 packets transmitted, 100 received" <<< "$out"
  grep -q "checksum as expected" <<< "$out"
  grep -q "counters agree" <<< "$out"
  first=$(sed -n 's/^first ping answered \([0-9]*\) ms.*/\1/p' <<< "$out")
  # More threads that never sleep than cores wait for each other.
  [ $mode = poll ] || [ "$first" -lt 1000 ]
done
agrees --fetch 2000000 --iova virtual
agrees --fetch 2000000 --pages 4K --queues 2
agrees --fetch 2000000 --far-end stack
agrees --stack kernel
agrees --device emulated:e1000e --fetch 2000000
agrees --device emulated:e1000e --queues 2 --mode interrupt --fetch 2000000
agrees --device emulated:e1000e --stack kernel
for mode in poll yield interrupt; do
  out=$($martlet run --fetch 20000000 --mode $mode --queues 2 --cores 0,1 < /dev/null 2>&1)
  grep "2 queue threads, $mode, on core 0,1" <<< "$out"
  grep "counters agree" <<< "$out"
done
# A sink counts what the driver received: at least what the kernel at the far end says unasked.
out=$($martlet run --stack sink --seconds 2 < /dev/null 2>&1)
driver=$(sed -n 's/^  rx_q0_packets //p' <<< "$out")
[ "$driver" -gt 0 ]
[ "$(sed -n 's/^  stack_rx_packets //p' <<< "$out")" = "$driver" ]
# Each thread has its core, and no right that the first one has not.
$martlet run --seconds 3 --fetch 0 --queues 2 --cores 1,0 < /dev/null > /dev/null 2>&1 &
running=$!
sleep 2
rights=$($martlet status --of $running)
wait
grep -E "\(martlet-host\) on core .*: the same rights" <<< "$rights"
grep "(queue 0) on core 1: the same rights" <<< "$rights"
grep "(queue 1) on core 0: the same rights" <<< "$rights"
! grep -E "OTHER RIGHTS|NOT CONFINED" <<< "$rights"
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$before" ]
