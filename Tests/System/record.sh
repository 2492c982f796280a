# A run of the whole system is recorded by a confined driver host, and replayed without its device.
set -e
martlet=.build/release/martlet
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trace=$folder/run.trace
out=$($martlet run --fetch 0 --memory 16 --ring-size 64 --record "$trace" < /dev/null 2>&1) || { echo "$out"; exit 1; }
echo "$out"
grep -q "100 packets transmitted, 100 received" <<< "$out"
# Nothing is lost at the end: what the driver does last is there.
grep -q "^trace: $(wc -l < "$trace") lines in $trace\$" <<< "$out"
grep -q '^mark stop$' "$trace"
tail -1 "$trace" | grep '^mark '
$martlet replay "$trace" | grep "virtio-net did the same in all of"

# What differs is named by its line.
number=$(grep -n '^mark 0 received' "$trace" | sed -n '3s/:.*//p')
sed "${number}s/\$/0/" "$trace" > "$folder/other.trace"
code=0
$martlet replay "$folder/other.trace" > "$folder/said" 2>&1 || code=$?
cat "$folder/said"
[ $code = 1 ] && [ "$(wc -l < "$folder/said")" = 1 ]
grep -qF "line $number: expected $(sed -n "${number}p" "$folder/other.trace"), got $(sed -n "${number}p" "$trace")" "$folder/said"

# A run that is told to end ends, with its trace whole.
$martlet run --fetch 0 --seconds 100 --record "$trace" < /dev/null > "$folder/said" 2>&1 &
runner=$!
for _ in $(seq 100); do grep -q 'until Ctrl-C' "$folder/said" && break; sleep 0.1; done
before=$SECONDS
kill -INT $runner
wait $runner
[ $((SECONDS - before)) -lt 10 ]
grep -q "^trace: $(wc -l < "$trace") lines in $trace\$" "$folder/said"
grep -q '^mark stop$' "$trace"

fails() {
  local wanted=$1 text=$2 code=0
  shift 2
  "$@" > "$folder/said" 2>&1 || code=$?
  cat "$folder/said"
  [ $code = "$wanted" ] && grep -qF -- "$text" "$folder/said"
}
fails 2 "No such file or directory" $martlet replay "$folder/none"
fails 2 "the first line is not" $martlet replay Makefile
fails 2 "is none of a driver's run" $martlet replay Tests/Fixtures/edu-qemu.trace
fails 1 "no trace can be written to $folder/none/run.trace: No such file or directory" \
  $martlet run --record "$folder/none/run.trace"
fails 64 "one queue pair" $martlet run --queues 2 --record "$trace"
# A trace for which there is no room does not hold up the run.
fails 1 "the trace in /dev/full is not whole: No space left on device" $martlet run --fetch 0 --record /dev/full
