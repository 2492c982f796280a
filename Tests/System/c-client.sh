#!/bin/bash
# A program in C, compiled with nothing but its header, answers pings on a NIC that it shares with others: once attached by
# itself, once by `martlet attach`. It sleeps when idle, and ends by itself when the supervisor does.
set -euo pipefail
martlet=.build/release/martlet
work=$(mktemp -d)
children=()
finish() {
  for child in "${children[@]}"; do kill "$child" 2> /dev/null || true; done
  wait
  rm -rf "$work"
}
trap finish EXIT
gcc -std=c11 -O2 -Wall -Wextra -Werror -I Sources/CMartletChannel/include Examples/icmp-echo.c -o "$work/icmp-echo"

# wait_for FILE TEXT
wait_for() {
  for _ in $(seq 100); do
    grep -q "$2" "$1" && return
    sleep 0.1
  done
  echo "no '$2' in $1:"
  cat "$work"/*.log
  return 1
}

$martlet run --share "$work/socket" --seconds 60 < /dev/null > "$work/run.log" 2>&1 &
run=$!
children+=($run)
wait_for "$work/run.log" "instances attach at"
enter=$(sed -n "s/^ *kernel's TCP\/IP, [^:]*: //p" "$work/run.log")
"$work/icmp-echo" 10.0.0.3 "$work/socket" > "$work/first.log" 2>&1 &
first=$!
$martlet attach --socket "$work/socket" --name second --stack "$work/icmp-echo" --address 10.0.0.4/24 -- 10.0.0.4 \
  > "$work/second.log" 2>&1 &
second=$!
children+=($first $second)
for address in 10.0.0.3 10.0.0.4; do
  # The first one waits for the attach and for ARP.
  for _ in $(seq 50); do $enter ping -c 1 -W 1 $address > "$work/ping.log" && break; sleep 0.1; done
  $enter ping -c 200 -i 0.005 -s 1000 $address | tee "$work/ping.log"
  grep -q "200 packets transmitted, 200 received" "$work/ping.log"
done
# Nobody has this one.
! $enter ping -c 1 -W 1 10.0.0.5
# The address is taken.
! $martlet attach --socket "$work/socket" --name third --stack sink --address 10.0.0.3/24 2> "$work/third.log"
grep "refuses" "$work/third.log"
# Idle, it uses no processor.
ticks() { awk '{print $14 + $15}' "/proc/$first/stat"; }
before=$(ticks)
sleep 2
[ $(($(ticks) - before)) -le 2 ]

kill -INT $run
wait $run
wait $first
wait $second
cat "$work/first.log" "$work/second.log"
for log in first second; do
  answered=$(sed -n 's/^icmp-echo: \([0-9]*\) answered.*/\1/p' "$work/$log.log")
  [ "$answered" -ge 201 ]
done
