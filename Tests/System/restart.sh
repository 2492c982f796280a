# The driver host is killed, stopped and replaced while connections run over it: none is lost, no byte is wrong, and no
# segment is missing afterwards.
set -u
. Tests/System/opening.bash
programs=$PWD/.build/release
running=
clean_up() { [ -n "$running" ] && kill -9 $running 2> /dev/null && wait $running 2> /dev/null; }
start() {
  : > "$work/run.log"
  $martlet run --control "$work/socket" --seconds 60 --fetch 0 "$@" < /dev/null > "$work/run.log" 2>&1 &
  running=$!
  until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
  inside=$(sed -n "s/.*\(nsenter.*\) ping .*/\1/p" "$work/run.log")
}
counter() { $martlet stats --socket "$work/socket" | sed -n "s/^ *$1 //p"; }
host() { counter host_process; }
restarts() { [ "$(counter host_restarts)" = "$1" ]; }

# A download over which the host is killed three times.
start
size=150000000
wanted=$($martlet pattern $size | sha256sum)
$inside curl -sS --limit-rate 60M --max-time 40 http://10.0.0.2/bytes/$size 2> "$work/curl.log" | sha256sum > "$work/sum" &
fetching=$!
for number in 1 2 3; do
  sleep 0.4
  kill -9 "$(host)"
  until_true restarts $number || fail "kill $number: no other host"
done
# And replaced: by one of its kind, by another program, and by one that does not start.
$martlet restart --socket "$work/socket" > "$work/restart.log" || fail "martlet restart"
grep -q "goes on: device-reset" "$work/restart.log" || fail "no parts: $(cat "$work/restart.log")"
cp "$programs/martlet-host" "$work/newer-host"
$martlet restart --socket "$work/socket" --host "$work/newer-host" > "$work/restart.log" || fail "another program"
runs_newer() { [ "$(readlink "/proc/$(host)/exe")" = "$work/newer-host" ]; }
runs_newer || fail "the newer program does not run"
$martlet restart --socket "$work/socket" --host /bin/false > "$work/restart.log"
until_true runs_newer || fail "the program before is not back"
wait $fetching
[ "$(cat "$work/sum")" = "$wanted" ] || fail "the checksum: $(cat "$work/curl.log")"
[ "$(counter host_restarts_ended)" = 3 ] && [ "$(counter host_restarts_requested)" = 3 ] || fail "the reasons: $($martlet stats --socket "$work/socket")"
held() { [ -z "$(counter rx_q0_segments_instance)" ]; }
until_true held || fail "the instance holds segments"
kill -INT $running
wait $running || fail "the run does not end well"
running=

# A device that fails, and one that completes what it was never given.
size=60000000
wanted=$($martlet pattern $size | sha256sum)
for device in "emulated needs-reset" "emulated:e1000e hugeLength"; do
  start --failures 100 --device ${device% *} --misbehave "${device#* }"
  $inside curl -sS --limit-rate 40M --max-time 40 http://10.0.0.2/bytes/$size 2> "$work/curl.log" | sha256sum > "$work/sum"
  [ "$(cat "$work/sum")" = "$wanted" ] || fail "$device, the checksum: $(cat "$work/curl.log")"
  [ "$(counter host_restarts_device)" -ge 2 ] || fail "$device: $($martlet stats --socket "$work/socket")"
  [ "$(counter host_restarts_device)" = "$(counter host_restarts)" ] || fail "$device, another reason: $($martlet stats --socket "$work/socket")"
  until_true held || fail "$device: the instance holds segments"
  kill -INT $running
  wait $running
  running=
done

# Who has no business here.
start --failures 3
if [ "$(id -u)" = 0 ]; then
  $martlet restart --socket "$work/socket" --host "$work/nowhere" 2> "$work/errors.log" && fail "a program that is not there"
fi
# A storm has an end.
for number in 1 2 3; do
  kill -9 "$(host)" 2> /dev/null
  [ $number = 3 ] || until_true restarts $number || fail "storm, kill $number"
done
wait $running
[ $? = 1 ] || fail "a storm ends with another code"
running=
grep -q "^martlet run: the driver host has failed 3 times within 10 s and is not started again" "$work/run.log" || fail "no reason"

python3 Benchmarks/Restart/restart.py --kills 5 --pause 0.25 --exclusive || exit 1
python3 Benchmarks/Restart/restart.py --kills 20 --pause 0.25 || exit 1
python3 Benchmarks/Restart/restart.py --kills 1 --pause 0.25 --hang || exit 1
