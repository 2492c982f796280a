#!/bin/bash
# What holds for every driver: it imports only what is below it and its own definitions, and it stays small.
# Only builds and reads files.
set -euo pipefail
failed=0
for folder in Drivers/*/; do
  name=$(basename "$folder")
  others=$(grep -hE '^(@[a-zA-Z_()]+ )?import ' "$folder"*.swift | sed 's/.*import //' | sort -u \
    | grep -vxE 'Driver|Rings|Memory|PCI' || true)
  for other in $others; do
    # A target of definitions imports nothing itself: no code that only one of driver and model should have. The ways to
    # a virtio device are shared by its drivers alone.
    if [ "$other" = VirtioTransports ]; then continue; fi
    if [ ! -d "Sources/$other" ] || grep -qhE '^import ' "Sources/$other"/*.swift; then
      echo "$name imports $other"
      failed=1
    fi
  done
  echo "$name: $(cat "$folder"*.swift | wc -l) lines"
done
limit() {
  local lines
  lines=$(cat "Drivers/$1"/*.swift | wc -l)
  [ "$lines" -lt "$2" ] || { echo "$1 has $lines lines, and should have fewer than $2"; failed=1; }
}
limit VirtioNet 2000
limit E1000e 900
limit Edu 150
exit $failed
