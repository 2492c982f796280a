#!/bin/bash
# What a run counts, read by everybody who may: as text, as JSON, by Prometheus' own parser over HTTP; without a word to
# anybody, over the end of a driver host and of the run.
set -u
. Tests/System/opening.bash
counter() { $martlet stats --socket "$socket" | sed -n "s/^ *$1 //p"; }
start() {
  : > "$work/run.log"
  $martlet run "$@" --seconds 60 < /dev/null > "$work/run.log" 2>&1 &
  running=$!
  pids+=($running)
  until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
  inside=$(sed -n "s/.*\(nsenter[^(]*--net[^ ]*\( [^ ]*\)*\).*/\1/p" "$work/run.log" | head -1)
}

out=$($martlet stats --socket "$work/none" 2>&1) && fail "stats of no run"
[[ $out == *"nobody can be reached at"* ]] || fail "no clear line: $out"
out=$($martlet metrics --socket "$work/none" --listen 0.0.0.0:0 2>&1) && fail "an address that others reach"
[[ $out == *"--force"* ]] || fail "no clear line: $out"
out=$($martlet metrics --socket "$work/none" --listen localhost:1 2>&1) && fail "a name as an address"
[[ $out == *"in numbers"* ]] || fail "no clear line: $out"

# The endpoint is there before the run, and outlives it.
strace -f -e trace=connect -o "$work/connects" $martlet metrics --socket "$socket" --listen 127.0.0.1:0 > "$work/metrics.log" 2>&1 &
pids+=($!)
until_true grep -q "^port" "$work/metrics.log" || fail "the endpoint does not start"
# It outlives its tracer, which is ended first.
pids+=($(pgrep -P "${pids[0]}"))
port=$(sed -n 's/^port \([0-9]*\):.*/\1/p' "$work/metrics.log")
scrape() { curl -sS --max-time 5 "http://127.0.0.1:$port/metrics"; }
value() { scrape | sed -n "s/^$1 //p"; }
[ "$(value martlet_up)" = 0 ] || fail "a run that is not there is up"

start --share "$socket" --stack lwip
pings() { $inside ping -n -q -c 20 -i 0.01 -W 2 10.0.0.2; }
inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
until_true pings || fail "no ping"
[ "$(value martlet_up)" = 1 ] || fail "a run that is there is not up"
# An attached instance is asked for once; fifty pages more are read without a word to the supervisor.
before=$(grep -c "$socket" "$work/connects")
for _ in $(seq 50); do scrape > "$work/page" || fail "a page"; done
[ "$(grep -c "$socket" "$work/connects")" = "$before" ] || fail "the supervisor is asked for each page: $(cat "$work/connects")"

/usr/bin/python3 - "$work/page" << 'P' || fail "the page does not parse"
import sys
try:
    from prometheus_client.parser import text_string_to_metric_families as parse
except ImportError:
    print("Prometheus' parser is not here (python3-prometheus-client): the page is not parsed")
    sys.exit(0)
text = open(sys.argv[1]).read()
families = {family.name: family for family in parse(text)}
assert len(families) > 30, sorted(families)
for family in families.values():
    assert family.type in ("counter", "gauge", "histogram"), family
    assert family.documentation, family.name
    labels = [(s.name, tuple(sorted(s.labels.items()))) for s in family.samples]
    assert len(labels) == len(set(labels)), f"{family.name} has samples twice"
sample = families["martlet_instance_rx_packets"].samples[0]
assert sample.labels["instance"] == "0" and sample.labels["name"], sample
assert sample.value >= 20, sample
assert {s.labels["reason"] for s in families["martlet_rx_dropped"].samples} >= {"unclaimed", "malformed", "ring_full"}
print(len(families), "families,", text.count("\n") - 2 * len(families), "metrics")
P
if command -v promtool > /dev/null; then promtool check metrics < "$work/page" || fail "promtool"; fi

# Text, JSON and page say the same of what has come to rest.
$martlet stats --socket "$socket" --json > "$work/json" || fail "json"
python3 - "$work/json" "$($martlet stats --socket "$socket" --prometheus | sed -n 's/^martlet_instance_rx_packets_total{.*} //p')" "$(counter rx_i0_packets)" << 'P' || fail "JSON, text and page do not say the same"
import json, sys
counters = json.load(open(sys.argv[1]))
assert abs(counters["rx_i0_packets"] - int(sys.argv[2])) < 5 and abs(int(sys.argv[2]) - int(sys.argv[3])) < 5, sys.argv
assert counters["stack_rx_packets" if "stack_rx_packets" in counters else "i0_stack_rx_packets"] > 0
P
for pair in "rings=^RX: *256" "channels=^Combined: *1" "coalescing=^Adaptive RX: on"; do
  $martlet stats --socket "$socket" --view "${pair%%=*}" | grep -q "${pair#*=}" || fail "the view ${pair%%=*}"
done
$martlet stats --socket "$socket" --watch > "$work/watch" 2>&1 &
watching=$!
pids+=($watching)
pings > /dev/null || fail "pings"

# Rules by their names, and captures by their places.
$martlet rules add --socket "$socket" 'rule first protocol=tcp destination=192.0.2.1 drop' 'rule pings-q0_i1 protocol=icmp icmp-type=8 to=lwip' || fail "rules"
$martlet capture --socket "$socket" -w "$work/capture.pcapng" icmp 2> "$work/capture.log" &
capturing=$!
pids+=($capturing)
until_true grep -q '^capturing' "$work/capture.log" || fail "a capture does not begin"
pings > /dev/null || fail "pings"
sleep 0.6
scrape > "$work/page"
$martlet stats --socket "$socket" --json > "$work/json" || fail "json"
/usr/bin/python3 - "$work/page" "$work/json" << 'P' || fail "rules and captures"
import json, sys
counters = json.load(open(sys.argv[2]))
assert counters["rule_pings-q0_i1_packets"] == 20 and counters["rule_first_packets"] == 0, counters
assert counters["rule_pings-q0_i1_bytes"] > 20 * 60 and counters["rule_pings-q0_i1_absent"] == 0, counters
assert counters["captures"] == 1 and counters["capture_0_written"] == 40 and counters["capture_0_lost"] == 0, counters
try:
    from prometheus_client.parser import text_string_to_metric_families as parse
except ImportError:
    sys.exit(0)
families = {family.name: family for family in parse(open(sys.argv[1]).read())}
rules = {sample.labels["rule"]: sample.value for sample in families["martlet_rule_packets"].samples}
assert rules == {"first": 0, "pings-q0_i1": 20}, rules
assert [sample.labels for sample in families["martlet_capture_written"].samples] == [{"capture": "0"}]
for name in ("rule_bytes", "rule_limited", "rule_absent"): assert len(families["martlet_" + name].samples) == 2, name
P
kill -INT $capturing
wait $capturing || fail "the capture"
# They go on in the page of another set, and are gone with their rule.
$martlet rules remove --socket "$socket" first || fail "a rule is not removed"
pings > /dev/null || fail "pings"
sleep 0.6
[ "$(value 'martlet_rule_packets_total{rule="pings-q0_i1"}')" = 40 ] || fail "a rule counts anew"
[ -z "$(value 'martlet_rule_packets_total{rule="first"}')" ] || fail "a rule that is gone is counted"
$martlet rules replace --socket "$socket" /dev/null || fail "rules are left"

# Another host counts on; the page does not know of it but by its number.
packets=$(value 'martlet_rx_packets_total{queue="0"}')
kill -9 "$(value martlet_host_process)"
until_true sh -c "curl -sS http://127.0.0.1:$port/metrics | grep -q '^martlet_host_restarts_total{reason=\"ended\"} 1'" || fail "no restart is counted"
until_true pings || fail "no ping after the host's end"
[ "$(value 'martlet_rx_packets_total{queue="0"}')" -gt "$packets" ] || fail "another host counts from 0"

# What is not a request for the page is refused, and costs nothing but its connection.
[ "$(curl -sS -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/")" = 404 ] || fail "/ is not 404"
[ "$(curl -sS -o /dev/null -w '%{http_code}' -X POST -d x "http://127.0.0.1:$port/metrics")" = 400 ] || fail "a POST with content"
[ "$(curl -sS -o /dev/null -w '%{http_code}' -H 'Host: other.example' "http://127.0.0.1:$port/metrics")" = 421 ] || fail "another host's name"
curl -sS -I "http://127.0.0.1:$port/metrics" | grep -q "^Content-Length: [1-9]" || fail "HEAD"

kill -TERM $running
wait $running || fail "the run does not end well"
wait $watching || fail "stats --watch does not end with the run"
grep -qE "^  rx_q0_packets [0-9]+  \+[0-9]+/s$" "$work/watch" || fail "no rates: $(cat "$work/watch")"
[ "$(value martlet_up)" = 0 ] || fail "a run that has ended is up"

# A run with one instance, asked the same way.
start --control "$socket" --fetch 0
$martlet stats --socket "$socket" --json | python3 -c '
import json, sys
counters = json.load(sys.stdin)
assert counters["host_process"] > 0 and "stack_rx_packets" in counters and "device_rx_packets" in counters, counters
' || fail "the counters of a run with one instance"
[ "$(value martlet_up)" = 1 ] || fail "the next run at the socket is not up"
kill -TERM $running
wait $running || fail "the run does not end well"
echo "counters: text, JSON, Prometheus"
