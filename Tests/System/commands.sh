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

# The commands of instances on a NIC that runs, each judged by the supervisor: what each of them said is compared.
$martlet run --share "$work/socket" --stack none < /dev/null > "$work/run" 2>&1 &
runner=$!
trap 'kill -INT $runner 2> /dev/null || true; wait; rm -rf "$work"' EXIT
for _ in $(seq 100); do [ -S "$work/socket" ] && break; sleep 0.1; done
timeout 30 $martlet bench-end attached-commands "$work/socket" 20000 > "$work/said"
cat "$work/said"
diff - <(grep -v 'round trips' "$work/said") << 'END'
link up mtu true
time true
statistics 0
join: done
join again: the command was refused: conflict
join another's: the command was refused: conflict
join nonsense: the command was refused: malformed
leave another's: the command was refused: not found
leave: done
join what was left: done
grow: done
another's credential: the command was refused: foreign credential
a guessed credential: the command was refused: wrong credential
credentials still good: true
END
$martlet stats --socket "$work/socket" > "$work/stats"
for pair in commands_foreign_credential=1 commands_wrong_credential=1 commands_conflict=2; do
  grep -qE "^ *${pair%=*} +${pair#*=}$" "$work/stats" || { echo "no $pair"; cat "$work/stats"; exit 1; }
done
