#!/bin/bash
# Every test that needs no guest: in process, then across processes on this machine. Ends with `N passed, N failed`.
set -uo pipefail
cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
swift build --build-tests || exit 1
# A crash is told by the exit status, at once: to print where it was takes longer than all tests.
export SWIFT_BACKTRACE=enable=no
timeout --kill-after=10 1200 swift test --skip-build 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
# Swift Testing marks each test's end, and the run's; a test that crashes the run has none, which the exit status tells.
ended() { grep -E "^$1 Test [^ ]+\(.* $2 after" "$log" | sed -E 's/^. Test ([^(]+).*/\1/'; }
passed=$(ended ✔ passed | wc -l)
missed=$(ended ✘ failed)
if [ "$status" != 0 ] && [ -z "$missed" ]; then missed="the-run-itself"; fi

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
# build most.
reads() { grep -l '^# Only builds and reads' Tests/System/*.sh; }
for script in $(comm -23 <(ls Tests/System/*.sh) <(reads)); do try "$script"; done
for script in $(reads | sort -r); do
  [ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
  try "$script" &
done
wait
# What has failed is tried once more when all is quiet, as these tests share the machine with others' work: what it said at
# first stands above, and what needed that is named at the end.
again=""
failed=""
for test in $missed; do
  echo "once more: $test"
  if swift test --skip-build --filter "/$test\(" > "$log" 2>&1 && grep -q '^✔ Test run with [1-9]' "$log"; then
    again="$again $test"
    passed=$((passed + 1))
  else
    tail -n 40 "$log"
    failed="$failed $test"
  fi
done
for script in $(ls Tests/System/*.sh); do
  [ ! -e "$results/$(basename "$script").passed" ] || continue
  echo "once more: $script"
  try "$script"
  if [ -e "$results/$(basename "$script").passed" ]; then again="$again $script"; else failed="$failed $script"; fi
done
passed=$((passed + $(ls "$results"/*.passed | wc -l)))
[ -z "$again" ] || echo "passed only when tried once more:$again"
[ -z "$failed" ] || echo "failed:$failed"
echo "$passed passed, $(wc -w <<< "$failed") failed"
[ -z "$failed" ] && [ "$passed" -gt 0 ]
