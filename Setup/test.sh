#!/bin/bash
# Every test that needs no guest: in process, then across processes on this machine. Ends with `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
swift build --build-tests || exit 1
swift test --skip-build 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
# Swift Testing marks each test's end; a test that crashes the run has none, which the exit status tells.
passed=$(grep -cE '^✔ Test .* passed after' "$log")
failed=$(grep -cE '^✘ Test .* failed after' "$log")
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi

results=$(mktemp -d)
trap 'rm -rf "$log" "$results"' EXIT
# try SCRIPT: leaves its output and how it ended in $results.
try() {
  local name began=$SECONDS group
  name=$results/$(basename "$1")
  # In a process group of its own, and printing to a file: what a script leaves running is neither waited for nor kept.
  timeout --kill-after=10 600 bash "$1" > "$name" 2>&1 < /dev/null &
  group=$!
  if wait $group; then
    echo "✔ $1 ($((SECONDS - began)) s)"
    touch "$name.passed"
  else
    echo "✘ $1 ($((SECONDS - began)) s)"
    tail -n 40 "$name"
  fi
  kill -9 -- -$group 2> /dev/null
}
# What moves packets runs alone; what only builds and reads files says so, and comes last, one on each core, those first that
# build most. What has failed is tried
# once more when all is quiet, as these tests share the machine with others' work: what it said at first stands above, and how
# many needed that is said at the end.
reads() { grep -l '^# Only builds and reads' Tests/System/*.sh; }
for script in $(comm -23 <(ls Tests/System/*.sh) <(reads)); do try "$script"; done
for script in $(reads | sort -r); do
  [ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
  try "$script" &
done
wait
again=0
for script in $(ls Tests/System/*.sh); do
  [ ! -e "$results/$(basename "$script").passed" ] || continue
  echo "once more:"
  try "$script"
  [ ! -e "$results/$(basename "$script").passed" ] || again=$((again + 1))
done
[ $again = 0 ] || echo "$again passed only when tried once more"
done=$(ls "$results"/*.passed | wc -l)
passed=$((passed + done))
failed=$((failed + $(ls Tests/System/*.sh | wc -l) - done))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
