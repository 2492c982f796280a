#!/bin/bash
# `martlet top` on a NIC that two instances share, in a real pseudo-terminal. With --pictures FOLDER, pictures of it.
set -u
. Tests/System/opening.bash
if ! /usr/bin/python3 -c 'import pyte' 2> /dev/null; then
  echo "a terminal emulator is missing (python3-pyte): martlet top is not looked at"
  exit 0
fi

$martlet run --share "$socket" --stack none --seconds 120 < /dev/null > "$work/run.log" 2>&1 &
pids+=($!)
until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
for pair in one=3 two=4; do
  $martlet attach --socket "$socket" --stack lwip --name "${pair%=*}" --address "10.0.0.${pair#*=}/24" > "$work/${pair%=*}.log" 2>&1 &
  pids+=($!)
done
for number in 3 4; do until_true $inside ping -c 1 -W 1 10.0.0.$number || fail "no ping of 10.0.0.$number"; done
# Something to see.
$inside curl -sS --limit-rate 20M --max-time 60 http://10.0.0.3/bytes/2000000000 > /dev/null 2> "$work/curl.log" &
pids+=($!)
$inside ping -q -i 0.01 10.0.0.4 > /dev/null 2>&1 &
pids+=($!)

$martlet rules add --socket "$socket" 'rule pings protocol=icmp to=two' || fail "no rule"
out=$($martlet top --socket "$socket" < /dev/null 2>&1) && fail "top without a terminal"
[[ $out == *"needs a terminal"* ]] || fail "no clear line: $out"
/usr/bin/python3 -B Tests/System/terminal.py "$martlet" "$socket" ${2:+"$2"} || fail "the terminal"
