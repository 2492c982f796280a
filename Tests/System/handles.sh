# Memory handles across users: a hostile client that tries everything, the commands, and what is left afterwards.
set -u
cd "$(dirname "$0")/../.."
martlet=$PWD/.build/release/martlet
work=$(mktemp -d)
chmod 755 "$work"
broker=0
finish() {
  [ $broker = 0 ] || { kill -9 $broker 2> /dev/null; wait $broker 2> /dev/null; }
  rm -rf "$work"
}
trap finish EXIT
fail() {
  echo "FAILED: $1"
  tail -n 60 "$work"/*.log
  exit 1
}
[ "$(id -u)" = 0 ] || { echo "skipped: only root can become other users"; exit 0; }
compiler=$(command -v clang || command -v cc) || { echo "skipped: no C compiler"; exit 0; }
$compiler -O1 -Wall -o "$work/hostile" Tests/System/handles-hostile.c 2> "$work/compiler.log" || fail "the hostile client does not compile"

$martlet handles serve --socket "$work/socket" > "$work/broker.log" 2>&1 &
broker=$!
for _ in $(seq 100); do grep -q ready "$work/broker.log" && break; sleep 0.05; done
grep -q ready "$work/broker.log" || fail "the broker does not start"
descriptors() { ls /proc/$broker/fd | wc -l; }
before=$(descriptors)

for round in 1 2; do
  timeout 120 "$work/hostile" "$work/socket" > "$work/hostile.log" 2>&1 || fail "something was not refused"
  grep "NOT REFUSED" "$work/hostile.log" && fail "something was not refused"
done
tail -n 1 "$work/hostile.log"
attempts=$(sed -n 's/^\([0-9]*\) attempts, 0 not refused$/\1/p' "$work/hostile.log")
[ "${attempts:-0}" -ge 80 ] || fail "only ${attempts:-0} attempts"

# Who dies takes its handles along; nothing is left of anyone.
for _ in $(seq 40); do [ "$(descriptors)" = "$before" ] && break; sleep 0.05; done
[ "$(descriptors)" = "$before" ] || fail "the broker has $(descriptors) descriptors, $before before"
[ -z "$($martlet handles list --socket "$work/socket")" ] || fail "handles are left"
$martlet handles list --counters --socket "$work/socket" > "$work/counters.log" || fail "no counters"
for reason in wrong_receiver unknown_handle expired used_up revoked no_right out_of_range empty not_owner foreign_sender \
  not_mapped part_of_memory writable_descriptor read_only_descriptor no_process; do
  [ "$(sed -n "s/^refused_$reason //p" "$work/counters.log")" -gt 0 ] || fail "$reason was not counted"
done
echo "each reason is counted, no descriptor and no handle is left"

# The commands, and their mistakes: one clear line each.
out=$($martlet handles revoke --socket "$work/socket" 7 2>&1) && fail "revoking nothing"
[ "$(wc -l <<< "$out")" = 1 ] && [[ $out == *"no handle of yours"* ]] || fail "no clear line: $out"
out=$($martlet handles list --socket "$work/nothing" 2>&1) && fail "listing nothing"
[ "$(wc -l <<< "$out")" = 1 ] && [[ $out == *"No such file"* ]] || fail "no clear line: $out"
out=$($martlet handles serve --socket "$work/socket" 2>&1) && fail "two brokers"
[ "$(wc -l <<< "$out")" = 1 ] && [[ $out == *"already listens"* ]] || fail "no clear line: $out"
out=$($martlet handles serve --socket "$work/other" --mode 999 2>&1) && fail "no mode"
[[ $out == *"--mode"* ]] || fail "no clear line: $out"

kill -TERM $broker
wait $broker || fail "the broker does not end well"
broker=0
grep -q "^refused_wrong_receiver [1-9]" "$work/broker.log" || fail "the broker does not say what it counted"
[ ! -e "$work/socket" ] || fail "the socket is left"
echo "commands: list, revoke, serve"
