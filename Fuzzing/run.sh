#!/bin/bash
# Builds the fuzz targets with libFuzzer and AddressSanitizer and runs each on its corpus.
# One target on each core at a time.
# Usage: Fuzzing/run.sh SECONDS [TARGET]...   a line for each: executions, executions a second, coverage
#        Fuzzing/run.sh FILE TARGET           the target once more with what it fell over
#        Fuzzing/run.sh keep TARGET...        what was found worth keeping becomes part of the corpus
# Ends with `N passed, N failed`, and with 1 where a target falls over: the input and how to repeat it are printed.
set -uo pipefail
cd "$(dirname "$0")/.."
. Fuzzing/programs.sh
found=.build-fuzz/found
if ! build; then
  echo "0 passed, 1 failed"
  exit 1
fi
action=${1:-20}
shift
targets=${*:-$(list | cut -d' ' -f1)}
mkdir -p $found

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

# report TARGET: a line that begins with the mark of success or failure.
report() {
  local target=$1 log=$found/$1.log count file began=$SECONDS
  # What was found before is thrown away: a run shows what the corpus of the repository leads to.
  rm -rf "${found:?}/$target"
  mkdir -p "$found/$target"
  if fuzz "$target" "$action" "$found/$target" > "$log" 2>&1; then
    count=$(executions "$log")
    if [ -z "$(coverage "$log")" ]; then
      echo "✘ fuzz $target: nothing of it is instrumented"
    else
      echo "✔ fuzz $target: $count executions, $((count / (SECONDS - began + 1)))/s, $(coverage "$log")"
    fi
  else
    file=$(sed -n 's/.*Test unit written to //p' "$log" | tail -1)
    echo "✘ fuzz $target: $(grep -aE 'Fatal error|ERROR: |SUMMARY' "$log" | head -2 | tr '\n' ' ')"
    echo "  repeat it: Fuzzing/run.sh $file $target; all that it said: $log"
  fi
}
# One on each core.
for target in $targets; do
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
  report "$target" > "$found/$target.line" &
done
wait
for target in $targets; do cat "$found/$target.line"; done | tee "$found/lines"
passed=$(grep -c '^✔' "$found/lines")
failed=$(grep -c '^✘' "$found/lines")
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
