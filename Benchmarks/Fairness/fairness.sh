#!/bin/bash
# How long nine instances take to answer pings, without and with a tenth that floods all that it can reach. Rounds of both
# in turn, in one run. Needs root and a release build: `Benchmarks/Fairness/fairness.sh [ROUNDS]`.
set -euo pipefail
cd "$(dirname "$0")/../.."
martlet=$PWD/.build/release/martlet
rounds=${1:-3}
work=$(mktemp -d)
children=()
finish() {
  for child in "${children[@]}"; do kill "$child" 2> /dev/null || true; done
  wait
  rm -rf "$work"
}
trap finish EXIT
gcc -O2 -I Sources/CMartletChannel/include Examples/icmp-echo.c -o "$work/icmp-echo"
gcc -std=gnu11 -O2 -pthread -I Sources/CMartletChannel/include Tests/System/hostile-instance.c -o "$work/hostile"
# The same for all ten: nobody gets more than a tenth of the host's time, also where nobody else wants it.
cat > "$work/policy.toml" << P
[memory]
budget = 1024
[default]
claims = ["any"]
time = 10
P
$martlet run --share "$work/socket" --policy "$work/policy.toml" --seconds 300 < /dev/null > "$work/run.log" 2>&1 &
children+=($!)
for _ in $(seq 200); do grep -q "until Ctrl-C" "$work/run.log" && break; sleep 0.1; done
enter=$(sed -n "s/^ *kernel's TCP\/IP, [^:]*: //p" "$work/run.log")
for number in $(seq 11 19); do
  "$work/icmp-echo" 10.0.0.$number "$work/socket" > "$work/echo$number.log" 2>&1 &
  children+=($!)
  for _ in $(seq 100); do $enter ping -q -c 1 -W 1 10.0.0.$number > /dev/null && break; sleep 0.1; done
done
read -r _ _ device _ station _ < <($enter ip neighbour show 10.0.0.11)
$enter ip neighbour replace 10.0.0.9 lladdr "$station" dev "$device" nud permanent

# measure NAME: appends round trip times, in ms.
measure() {
  local pings=() number
  for number in $(seq 11 19); do
    $enter ping -n -c 300 -i 0.01 -W 5 10.0.0.$number > "$work/ping$number.log" &
    pings+=($!)
  done
  for ping in "${pings[@]}"; do wait "$ping" || true; done
  sed -n 's/.*time=\([0-9.]*\) ms/\1/p' "$work"/ping1?.log >> "$work/$1"
  echo $((9 * 300 - $(cat "$work"/ping1?.log | grep -c time=))) >> "$work/$1.lost"
}
show() {
  sort -n "$work/$1" | awk -v name="$1" -v lost="$(awk '{ s += $1 } END { print s }' "$work/$1.lost")" '
    { t[NR] = $1 } END { printf "%-16s %6d answers, %d lost, p50 %.3f ms, p99 %.3f ms\n", name, NR, lost, t[int(NR / 2)], t[int(NR * 0.99)] }'
}
p99() { sort -n "$work/$1" | awk '{ t[NR] = $1 } END { print t[int(NR * 0.99)] }'; }
for _ in $(seq "$rounds"); do
  measure without
  "$work/hostile" "$work/socket" 10.0.0.9 flood 10.0.0.11 > "$work/hostile.log" 2>&1 &
  hostile=$!
  $enter ping -q -f 10.0.0.9 > /dev/null 2>&1 &
  flood=$!
  sleep 0.3
  measure with
  kill -0 $hostile || { echo "the hostile one was closed: $(cat "$work/hostile.log")"; exit 1; }
  kill -9 $hostile $flood
  wait $hostile $flood 2> /dev/null || true
  sleep 0.3
done
show without
show with
awk -v a="$(p99 without)" -v b="$(p99 with)" 'BEGIN { printf "p99 with the hostile one: %.2f of that without\n", b / a }'
