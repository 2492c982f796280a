#!/bin/bash
# Checks the models by an exhaustive search, and that each variant with a mistake in it fails. Ends with how many were right.
# model.sh [large]: with larger bounds, by hand.
set -uo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# check EXPECTED MODEL WORDS: `holds` for a model that has no error, `fails` for one that must have.
check() {
  local expected=$1 model=$2 folder="$work/$((passed + failed))" text verdict
  shift 2
  mkdir "$folder"
  cp ./*.pml ./*.h "$folder"
  text=$(cd "$folder" && spin -a "${@/#/-D}" "$model.pml" 2>&1 && gcc -O2 -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -o pan pan.c 2>&1 && timeout 3600 ./pan -m1000000 -w24 2>&1)
  verdict=unclear
  if grep -q 'errors: 0' <<< "$text" && ! grep -q -e 'max search depth too small' -e 'memory exhausted' <<< "$text"; then
    verdict=holds
  elif grep -q -e 'errors: [1-9]' <<< "$text"; then
    verdict=fails
  fi
  if [ "$verdict" = "$expected" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "$text"
    echo "WRONG: $model $*: $verdict, not $expected"
    [ -f "$folder/$model.pml.trail" ] && (cd "$folder" && spin -t -p -k "$model.pml.trail" "${@/#/-D}" "$model.pml" | tail -60)
  fi
  printf '%-5s %s\n' "$verdict" "$model $*: $(grep -o '[0-9.e+]* states, stored' <<< "$text"), depth $(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' <<< "$text"), $(sed -n 's/.*elapsed time \([0-9.]*\).*/\1/p' <<< "$text") s"
  rm -rf "$folder"
}

fails() { for variant in "${@:2}"; do check fails "$1" $variant; done; }

began=$SECONDS
check holds Sleep
check holds Sleep DEATHS=1
fails Sleep RING_FENCE_LEFT_OUT SLEEP_FENCE_LEFT_OUT LOOK_BEFORE_ANNOUNCE CLEAR_AFTER_RING ANSWER_BEFORE_SLEEP \
  "DEATHS=1 RING_AFTER_RECOVERY_LEFT_OUT"
check holds FullRing
fails FullRing ROOM_NOT_LOOKED_AT TAKEN_FENCE_LEFT_OUT
check holds Release
fails Release ANSWER_BEFORE_SETTLED LET_GO_BEFORE_LANDED FREED_BEFORE_SHRUNK INSTANCE_TOLD_FIRST RESET_LEFT_OUT \
  KNOWLEDGE_LOST WITHDRAWN_TOLD_AGAIN EXTENT_NOT_TOLD_AGAIN
record="LOG_LEFT_OUT INDEX_BEFORE_COUNT COPY_AFTER_LOG MARK_BEFORE_LOG PUBLISH_BEFORE_LOG END_BEFORE_COMMIT REDO_LEFT_OUT KILL_LEFT_OUT"
device="RESET_LEFT_OUT FREE_BEFORE_RESET"
for units in RECEIVE TRANSMIT COPIED; do
  check holds Ownership $units
  for variant in $record; do check fails Ownership $units FAULTS=1 $variant; done
done
for units in RECEIVE TRANSMIT; do
  for variant in $device; do check fails Ownership $units FAULTS=1 $variant; done
done
check fails Ownership COPIED FAULTS=1 SHIFT_BEFORE_END
check fails Ownership RECEIVE UNITS=3 FAULTS=1 LOG_MORE_THAN_ROOM
if [ "${1:-}" = large ]; then
  check holds Sleep THINGS=3 DEATHS=2
  check holds FullRing THINGS=7 SLOTS=3
  check holds Release MOVES=4 DEATHS=4
  check holds Ownership RECEIVE FAULTS=3
  check holds Ownership COPIED FAULTS=3
  check holds Ownership TRANSMIT FAULTS=3
  check holds Ownership RECEIVE UNITS=3 FAULTS=2
  check holds Ownership COPIED UNITS=3 FAULTS=2
  check holds Ownership TRANSMIT UNITS=3 FAULTS=2
fi
echo "$((SECONDS - began)) s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
