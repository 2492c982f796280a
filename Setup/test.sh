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

for script in Tests/System/*.sh; do
  [ -e "$script" ] || continue
  began=$SECONDS
  # In a process group of its own, and printing to a file: what a script leaves running is neither waited for nor kept.
  timeout --kill-after=10 420 bash "$script" > "$log" 2>&1 < /dev/null &
  group=$!
  if wait $group; then
    passed=$((passed + 1))
    echo "✔ $script ($((SECONDS - began)) s)"
  else
    failed=$((failed + 1))
    echo "✘ $script ($((SECONDS - began)) s)"
    tail -n 40 "$log"
  fi
  kill -9 -- -$group 2> /dev/null
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
