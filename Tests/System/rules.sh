# Rules on a shared NIC: they are set, changed and listed while traffic runs; packets go where they say, none is lost for a
# change, and they outlive the driver host.
set -u
. Tests/System/opening.bash
[ -e Sources/CLwIP/lwip/.version ] || { echo "without lwIP: left out"; exit 0; }
rules() { $martlet rules "$1" --socket "$socket" "${@:2}"; }
# count NAME FIELD: what a rule has counted.
count() { rules list --json | sed -n "s/.*\"name\":\"$1\",.*\"$2\":\([0-9]*\).*/\1/p"; }
counter() { $martlet stats --socket "$socket" | sed -n "s/^ *$1 *//p"; }

# What is wrong has its line, and what is questionable is said.
cat > "$work/bad.toml" << 'T'
[[rule]]
name = "web"
destination-port = 80
to = "a"

[[rule]]
name = "worse"
destination-port = "eighty"
T
out=$($martlet rules check "$work/bad.toml" 2>&1) && fail "a bad file passes"
[[ $out == *"bad.toml:6: "*eighty* ]] || fail "no line for the mistake: $out"
printf 'rule all protocol=tcp drop\nrule web protocol=tcp destination-port=80 to=a\n' > "$work/shadow.rules"
out=$($martlet rules check "$work/shadow.rules") || fail "a shadowed rule is no error: $out"
[[ $out == *web*all* ]] || fail "the shadowed rule is not named: $out"
printf 'rule net source=192.0.2.0/24 to=a\nrule dns protocol=udp destination-port=53 to=b\n' > "$work/test.rules"
frame=ffffffffffff02000000000108004500001c00010000401100000a0000010a0000033039003500080000
out=$($martlet rules test --rules "$work/test.rules" --why --hex $frame) || fail "no test of a frame: $out"
[[ $out == *dns* && $out == *192.0.2.0/24* ]] || fail "the test does not say why: $out"

# "a" has the address and "b" a port of it, so that it may ask who has which address; who gets connections to port 80 rules say.
cat > "$work/policy.toml" << 'P'
[default]
claims = ["any"]
P
cat > "$work/rules.toml" << 'T'
[[rule]]
name = "web"
destination = "10.0.0.3"
protocol = "tcp"
destination-port = 80
to = ["a", "b"]
T
$martlet run --share "$socket" --policy "$work/policy.toml" --rules "$work/rules.toml" --stack none --seconds 100 < /dev/null > "$work/run.log" 2>&1 &
running=$!
pids+=($running)
until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
$martlet attach --socket "$socket" --name a --stack lwip --address 10.0.0.3/24 > "$work/a.log" 2>&1 &
pids+=($!)
until_true $inside ping -n -q -c 1 -W 1 10.0.0.3 || fail "no ping"
$martlet attach --socket "$socket" --name b --stack lwip --address 10.0.0.3/24 --claim ipv4:10.0.0.3/tcp/9 > "$work/b.log" 2>&1 &
pids+=($!)
until_true grep -q "(b) is ready" "$work/run.log" || fail "b does not attach"

# Connections go to both by their flows.
wanted=$($martlet pattern 200000 | sha256sum)
for _ in $(seq 24); do
  [ "$($inside curl -sS --max-time 10 http://10.0.0.3/bytes/200000 | sha256sum)" = "$wanted" ] || fail "wrong bytes"
done
[ "$(counter tx_i0_packets)" -gt 300 ] && [ "$(counter tx_i1_packets)" -gt 300 ] ||
  fail "not by flow: $(counter tx_i0_packets) and $(counter tx_i1_packets) packets sent"
[ "$(count web packets)" -gt 600 ] && [ "$(count web absent)" = 0 ] || fail "web: $(rules list)"

# Added, counted, modified, moved, removed.
rules add 'rule deaf protocol=icmp icmp-type=8 drop' || fail "no rule is added"
$inside ping -n -q -c 2 -i 0.2 -W 1 10.0.0.3 > /dev/null && fail "a dropped ping is answered"
[ "$(count deaf packets)" = 2 ] && [ "$(counter rx_dropped_rule)" = 2 ] || fail "what was dropped is not counted: $(rules list)"
rules modify 'rule deaf protocol=icmp icmp-type=8 limit=10pps burst=5' || fail "no rule is modified"
sent=$($inside ping -n -q -c 60 -i 0.005 -W 1 10.0.0.3 | sed -n 's/.* \([0-9]*\) received.*/\1/p')
[ "$sent" -ge 5 ] && [ "$sent" -le 20 ] && [ "$(count deaf limited)" = $((60 - sent)) ] ||
  fail "10 a second and 5 at once: $sent of 60 pings, $(rules list)"
[ "$(count deaf packets)" = 62 ] || fail "a modified rule counts anew: $(rules list)"
rules move deaf --before web || fail "no rule is moved"
[ "$(rules list --text | sed -n 's/^rule \([a-z]*\) .*/\1/p' | tr '\n' ' ')" = "deaf web " ] || fail "order: $(rules list --text)"
rules add 'rule deaf drop' 2> "$work/out.log" && fail "two rules of one name"
rules remove nobody 2> "$work/out.log" && fail "a rule is removed that is not there"
grep -q "nobody: there is no such rule" "$work/out.log" || fail "no clear line: $(cat "$work/out.log")"
rules remove deaf || fail "no rule is removed"

# A hundred changes a second, of a set that says the same with other rules around it: nothing is lost.
cat > "$work/change.py" << 'P'
import os, socket, sys, time
text = open(sys.argv[2]).read()
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
begin, done = time.time(), 0
while time.time() < begin + 4:
    other = "".join(f"rule other{n} priority={n} destination=192.0.2.{n} protocol=udp drop\n" for n in range(done % 50 + 1))
    data = (other + text).encode()
    memory = os.memfd_create("rules")
    os.write(memory, data)
    socket.send_fds(s, [f"rules replace bytes={len(data)}".encode()], [memory])
    os.close(memory)
    while (answer := s.recv(16384)) != b"end":
        assert answer.startswith(b"remark"), answer
    done += 1
    time.sleep(max(0, begin + done / 100 - time.time()))
print(done, "changes in", round(time.time() - begin, 1), "s")
P
rules list --text > "$work/now.rules"
python3 "$work/change.py" "$socket" "$work/now.rules" > "$work/change.log" 2>&1 &
changes=$!
pids+=($changes)
(
  while kill -0 $changes 2> /dev/null; do
    [ "$($inside curl -sS --max-time 20 http://10.0.0.3/bytes/2000000 | sha256sum)" = "$($martlet pattern 2000000 | sha256sum)" ] || { echo wrong; exit 1; }
  done
) > "$work/fetch.log" 2>&1 &
fetches=$!
pids+=($fetches)
answered=$($inside ping -n -q -c 300 -i 0.01 -W 2 10.0.0.3 | sed -n 's/.* \([0-9]*\) received.*/\1/p')
wait $changes || fail "changes: $(cat "$work/change.log")"
wait $fetches || fail "downloads during changes: $(cat "$work/fetch.log")"
[ "$(sed -n 's/ changes.*//p' "$work/change.log")" -ge 200 ] || fail "too slow: $(cat "$work/change.log")"
[ "$(counter rx_dropped_rule)" = $((2 + 60 - sent)) ] && [ "$(count web absent)" = 0 ] || fail "something was dropped: $(counter rx_dropped_rule)"
echo "$(cat "$work/change.log"), under downloads"

# Rules and their counts outlive the driver host.
rules replace "$work/now.rules" || fail "no rules are replaced"
before=$(count web packets)
kill -9 "$(pgrep -P $running -x martlet-host)"
[ "$($inside curl -sS --max-time 10 http://10.0.0.3/bytes/200000 | sha256sum)" = "$wanted" ] || fail "not after a kill"
[ "$(count web packets)" -gt "$before" ] || fail "the next host counts nothing"

# Whom a rule names that is not there gets nothing, and that is counted.
rules replace /dev/stdin <<< 'rule gone protocol=icmp to=nobody' || fail "a rule for one who is not there"
$inside ping -n -q -c 1 -W 1 10.0.0.3 > /dev/null && fail "somebody answers"
[ "$(count gone absent)" = 1 ] || fail "not counted: $(rules list)"
rules replace /dev/null || fail "not without rules"
[ -z "$(rules list --text)" ] || fail "rules are left"
$inside ping -n -q -c 1 -W 2 10.0.0.3 > /dev/null || fail "no ping without rules"

kill -TERM $running
wait $running || fail "the run does not end well"
echo "rules: all well"
