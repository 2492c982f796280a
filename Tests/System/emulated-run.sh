# The whole system with the emulated device ends by itself, with every check passed and nothing left over.
set -e
martlet=.build/release/martlet
before=$(cat /proc/sys/vm/nr_hugepages)
for mode in adaptive poll interrupt; do
  out=$($martlet run --fetch 20000000 --mode $mode < /dev/null 2>&1) || { echo "$out"; exit 1; }
  echo "$out"
  grep -q "100 packets transmitted, 100 received" <<< "$out"
  grep -q "checksum as expected" <<< "$out"
  grep -q "counters agree" <<< "$out"
  first=$(sed -n 's/^first ping answered \([0-9]*\) ms.*/\1/p' <<< "$out")
  [ "$first" -lt 1000 ]
done
$martlet run --fetch 2000000 --iova virtual < /dev/null 2>&1 | grep "counters agree"
$martlet run --fetch 2000000 --pages 4K --queues 2 < /dev/null 2>&1 | grep "counters agree"
$martlet run --fetch 2000000 --far-end stack < /dev/null 2>&1 | grep "counters agree"
$martlet run --stack kernel < /dev/null 2>&1 | grep "counters agree"
$martlet run --device emulated:e1000e --fetch 2000000 < /dev/null 2>&1 | grep "counters agree"
$martlet run --device emulated:e1000e --queues 2 --mode interrupt --fetch 2000000 < /dev/null 2>&1 | grep "counters agree"
$martlet run --device emulated:e1000e --stack kernel < /dev/null 2>&1 | grep "counters agree"
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$before" ]
