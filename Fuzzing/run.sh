#!/bin/bash
# Builds the fuzz targets with libFuzzer and AddressSanitizer and runs each on its corpus.
# One target on each core at a time.
# Usage: Fuzzing/run.sh SECONDS [TARGET]...   a line for each: executions, executions a second, coverage
#        Fuzzing/run.sh FILE TARGET           the target once more with what it fell over
#        Fuzzing/run.sh keep TARGET...        what was found worth keeping becomes part of the corpus
# Ends with `N passed, N failed`, and with 1 where a target falls over: the input and how to repeat it are printed.
set -uo pipefail
cd "$(dirname "$0")/.."
program=.build-fuzz/release/martlet-fuzz
found=.build-fuzz/found
export MARTLET_FUZZING=1
# What is freed is kept from reuse for 4 MiB, and remembered with the function that made it: much of the time of a short
# input is its memory.
export ASAN_OPTIONS=malloc_context_size=1:quarantine_size_mb=4:thread_local_quarantine_size_kb=64:detect_stack_use_after_return=0
# The run time's own handler waits for ever for a program under AddressSanitizer.
export SWIFT_BACKTRACE=enable=no

# Of two -sanitize flags the compiler takes the last one alone: it has to name both. The package manager has to know of
# libFuzzer, which brings a main function.
if ! out=$(swift build -c release --scratch-path .build-fuzz --sanitize fuzzer \
  -Xswiftc -sanitize=fuzzer,address -Xswiftc -enforce-exclusivity=unchecked -Xswiftc -enable-testing \
  --product martlet-fuzz 2>&1); then
  grep -E 'error|warning' <<< "$out" | grep -v 'Cannot export' | head -20
  echo "0 passed, 1 failed"
  exit 1
fi
unset MARTLET_FUZZING
action=${1:-20}
shift
targets=${*:-$($program)}
mkdir -p $found

once() { MARTLET_FUZZ_TARGET=$1 $program "${@:2}"; }

if [ -f "$action" ]; then
  # What depends on another thread may need more than one try.
  once "$targets" -runs=2000 "$action"
  exit
fi
if [ "$action" = keep ]; then
  for target in $targets; do
    once "$target" -merge=1 "Fuzzing/Corpus/$target" "$found/$target" 2>&1 | grep -E '^MERGE-OUTER: .*written|MERGE-OUTER: [0-9]+ new files'
  done
  exit
fi

# fuzz TARGET: a line that begins with the mark of success or failure.
fuzz() {
  local target=$1 log=$found/$1.log executions rate coverage file
  # What was found before is thrown away: a run shows what the corpus of the repository leads to.
  rm -rf "${found:?}/$target"
  mkdir -p "$found/$target"
  if once "$target" -max_total_time="$action" -max_len=1024 -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
    -verbosity=1 -artifact_prefix="$found/$target-" "$found/$target" "Fuzzing/Corpus/$target" > "$log" 2>&1; then
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    coverage=$(grep -oE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" | tail -1)
    if [ -z "$coverage" ]; then
      echo "✘ fuzz $target: nothing of it is instrumented"
    else
      echo "✔ fuzz $target: $executions executions, $rate/s, $coverage"
    fi
  else
    file=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
    echo "✘ fuzz $target: $(grep -E 'Fatal error|ERROR: |SUMMARY' "$log" | head -2 | tr '\n' ' ')"
    echo "  repeat it: Fuzzing/run.sh $file $target; all that it said: $log"
  fi
}
# One on each core.
for target in $targets; do
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  fuzz "$target" > "$found/$target.line" &
done
wait
for target in $targets; do cat "$found/$target.line"; done | tee "$found/lines"
passed=$(grep -c '^✔' "$found/lines")
failed=$(grep -c '^✘' "$found/lines")
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
