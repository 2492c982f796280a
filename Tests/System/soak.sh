#!/bin/bash
# Many instances and the kernel's on one NIC pass checked traffic while others attach, hang, detach and are killed at
# random: nothing is lost, nobody sees what is another's. soak.sh [SECONDS] [SEED] [faults | kills]; the seed is printed first,
# and with it a run can be repeated. 600 seconds have more than 500 kills. `faults`: processes are stopped, stutter and run out
# of descriptors and memory; `kills`: the driver host is killed too.
set -euo pipefail
seconds=${1:-25}
seed=${2:-$((RANDOM * 32768 + RANDOM))}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "soak: $seconds s, seed $seed ${3:-}"
gcc -D_GNU_SOURCE -std=c11 -O2 -Wall -Wextra -Werror -I Sources/CMartletChannel/include Tests/Soak/canary.c -o "$work/canary"
python3 -B Tests/Soak/soak.py "$PWD/.build/release/martlet" "$work/canary" "$seconds" "$seed" "${@:3}"
