#!/bin/bash
# Commands through shared memory cost no system call on either end: both processes, with all of their threads, make as
# many for 420000 commands as for 20000.
set -euo pipefail
martlet=.build/release/martlet
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# calls COUNT: system calls of both processes, from start to end.
calls() {
  timeout 60 strace -f -c -o "$work/$1" "$martlet" bench-end command-pair "$1"
  awk '$NF == "total" { sum += $4 } $NF == "restart_syscall" { sum -= $4 } END { print sum + 0 }' "$work/$1"
}

short=$(calls 20000)
long=$(calls 420000)
echo "$short system calls in all with 20000 commands, $long with 420000"
if [ "$short" -lt 50 ]; then echo "strace has not seen both processes"; exit 1; fi
# A start differs now and then by a call or two.
if [ $((long - short)) -gt 8 ]; then cat "$work/420000"; exit 1; fi
