#!/bin/bash
# The tests of channel, rings, pool and caches under the thread sanitizer, optimised. What it cannot see, and where that is
# proved: Models/README.md. Ends with how many runs were right.
set -uo pipefail
cd "$(dirname "$0")/../.."
export MARTLET_TESTS="MemoryTests RingsTests ChannelTests CommandsTests"
# Doorbells put nothing in order: what the rings say has to do. And what is copied counts, which Swift's sanitizer leaves
# out unless it is told.
export TSAN_OPTIONS="io_sync=0 ignore_interceptors_accesses=0"
export SWIFT_BACKTRACE=enable=no
options=(-c release --scratch-path .build/threads --sanitize thread)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=0

swift build "${options[@]}" -Xswiftc -enable-testing --product martletPackageTests > "$log" 2>&1 || {
  cat "$log"
  exit 1
}

# run EXPECTED FILTER: `clean`, or `race` where one is put in.
run() {
  local verdict=broken
  timeout 900 swift test --skip-build "${options[@]}" --no-parallel --filter "$2" > "$log" 2>&1 \
    && grep -q 'Test run with [1-9]' "$log" && verdict=clean
  grep -q 'WARNING: ThreadSanitizer: .* race' "$log" && verdict=race
  if [ "$verdict" = "$1" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    cat "$log"
    echo "WRONG: $2: $verdict, not $1"
  fi
  printf '%-5s %s %s\n' "$verdict" "$2" "$(grep -o 'Test run with .*' "$log" | tail -1)"
}

for suite in $MARTLET_TESTS; do run clean "^$suite\."; done
export MARTLET_RACE=1
run race DeliberateRaceTests/wordsAreWrittenByTwo
run race DeliberateRaceTests/copiesAreWrittenByTwo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
