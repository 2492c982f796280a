#!/bin/bash
# Goes on fuzzing where it was left: what was found stays, and executions add up.
# Usage: Fuzzing/tally.sh SECONDS [TARGET]...   each target so long, one after the other
#        Fuzzing/tally.sh                       a table of all that was run, and the sum
# The count is in .build-fuzz/tally/record: date, target, executions, seconds, counters that were reached, features, inputs.
set -uo pipefail
cd "$(dirname "$0")/.."
. Fuzzing/programs.sh
folder=.build-fuzz/tally
record=$folder/record
mkdir -p $folder
touch $record

if [ $# = 0 ]; then
  awk '{ n[$2] += $3; e[$2] = $5; f[$2] = $6; all += $3 }
    END { for (t in n) printf "| %s | %d | %d | %d |\n", t, n[t], e[t], f[t] | "sort"
      close("sort"); printf "%d executions in all\n", all }' $record
  exit
fi
seconds=$1
shift
build || exit 1
status=0
for target in ${*:-$(list | cut -d' ' -f1)}; do
  log=$folder/$target.log
  mkdir -p "$folder/$target"
  began=$SECONDS
  if fuzz "$target" "$seconds" "$folder/$target" > "$log" 2>&1; then
    read -r _ edges _ features _ inputs <<< "$(coverage "$log")"
    echo "$(date -u +%F) $target $(executions "$log") $((SECONDS - began)) $edges $features $inputs" | tee -a $record
  else
    status=1
    echo "$target fell over: $log" >&2
  fi
done
exit $status
