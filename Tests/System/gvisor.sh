# A stack from another hand, in another language, behind StackInstance: gVisor's, chosen at run time. Without its
# library the program says what is missing.
set -u
martlet=.build/release/martlet
library=.build/release/libmartlet-gvisor.so
out=$(mktemp)
socket=$out.socket
log=$out.run
trap 'kill $(jobs -p) 2> /dev/null; rm -f "$out" "$log" "$socket"; [ -e "$library.aside" ] && mv "$library.aside" "$library"' EXIT
fail() { echo "$1"; cat "$out"; exit 1; }
before=$(cat /proc/sys/vm/nr_hugepages)

Setup/gvisor.sh .build/release > "$out" 2>&1 || fail "gVisor cannot be built"
mv "$library" "$library.aside"
$martlet run --stack gvisor < /dev/null > "$out" 2>&1 && fail "ran without the library"
grep -q 'gvisor needs `make gvisor`' "$out" || fail "does not say what is missing"
mv "$library.aside" "$library"
$martlet run --stack nonsense < /dev/null > "$out" 2>&1 && fail "ran a stack that there is not"
grep -q "no stack named nonsense: there are gvisor, kernel, lwip, sink" "$out" || fail "does not say which stacks there are"

value() { sed -n "s/^  $1 //p" "$out"; }
for options in "--mode adaptive" "--mode interrupt --queues 2" "--mode poll --device emulated:e1000e"; do
  $martlet run --stack gvisor --fetch 20000000 $options < /dev/null > "$out" 2>&1 || fail "$options: failed"
  grep -q "100 packets transmitted, 100 received" "$out" || fail "$options: pings"
  grep -q "checksum as expected" "$out" || fail "$options: checksum"
  # Each byte is copied once, on its way in or out: no more and no less.
  grep -q "counters agree" "$out" || fail "$options: counters"
  [ "$(value stack_rx_copied_bytes)" = "$(value stack_rx_bytes)" ] || fail "$options: copies in"
  [ "$(value stack_tx_copied_bytes)" = "$(value stack_tx_bytes)" ] || fail "$options: copies out"
  [ "$(value stack_tx_bytes)" -gt 20000000 ] || fail "$options: bytes"
  # Every segment is back: the pool's own, and those of received packets (32 MiB in pieces of 2 KiB).
  [ -z "$(value stack_segment_references)" ] || fail "$options: segments of the pool"
done

# The instance is killed while it sends: the run ends with a reason, and nothing is left.
$martlet run --stack gvisor --fetch 2000000000 < /dev/null > "$out" 2>&1 &
runner=$!
for _ in $(seq 300); do grep -q "100 received" "$out" && break; sleep 0.1; done
children=$(ps -o pid= --ppid $runner)
for p in $children; do grep -q martlet-stack "/proc/$p/comm" && kill -9 "$p"; done
wait $runner
[ $? = 1 ] || fail "killed: the run did not end with 1"
[ "$(grep -c '^martlet run: ' "$out")" = 1 ] || fail "killed: no reason in one line"
for _ in $(seq 30); do
  left=""
  for p in $children; do [ -d "/proc/$p" ] && ! grep -q '^State:.Z' "/proc/$p/status" && left="$left $p"; done
  [ -z "$left" ] && break
  sleep 0.1
done
[ -z "$left" ] || fail "killed: left over: $left"
# On a NIC that is shared, beside lwIP: one MAC address, two addresses, two stacks.
$martlet run --share "$socket" --seconds 60 < /dev/null > "$log" 2>&1 &
for _ in $(seq 300); do grep -q "until Ctrl-C" "$log" 2> /dev/null && break; sleep 0.1; done
inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$log")
$martlet attach --socket "$socket" --stack gvisor --address 10.0.0.3/24 > "$out" 2>&1 &
$martlet attach --socket "$socket" --stack lwip --address 10.0.0.4/24 >> "$out" 2>&1 &
for _ in $(seq 100); do [ "$(grep -c 'is ready' "$log")" = 2 ] && break; sleep 0.1; done
wanted=$($martlet pattern 5000000 | sha256sum)
for host in 10.0.0.3 10.0.0.4; do
  $inside ping -q -c 100 -i 0.01 -W 2 $host | grep -q "100 received" || fail "shared: pings to $host"
  [ "$($inside curl -sS --max-time 20 http://$host/bytes/5000000 | sha256sum)" = "$wanted" ] || fail "shared: checksum of $host"
done
kill $(jobs -p)
wait

for _ in $(seq 30); do [ "$(cat /proc/sys/vm/nr_hugepages)" = "$before" ] && break; sleep 0.1; done
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$before" ] || fail "huge pages are left in the pool"
