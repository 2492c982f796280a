# Stages between the driver and the instances, each in a process of its own: packets go through them and come out right, a
# process that is killed or stopped is bypassed or fails closed as configured, and comes back. With a number: that many kills
# of each kind of failure, 10 else.
set -u
kills=${1:-10}
. Tests/System/opening.bash
[ -e Sources/CLwIP/lwip/.version ] || { echo "without lwIP: left out"; exit 0; }
chmod 755 "$work"
pages=$(cat /proc/sys/vm/nr_hugepages)

# start: a run by the policy, with lwIP at 10.0.0.3 attached.
start() {
  : > "$work/run.log"
  $martlet policy check "$work/policy.toml" || fail "the policy"
  $martlet run --share "$socket" --policy "$work/policy.toml" --stack none --seconds 200 "$@" < /dev/null > "$work/run.log" 2>&1 &
  running=$!
  pids+=($running)
  until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
  inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
  $martlet attach --socket "$socket" --stack lwip --address 10.0.0.3/24 > "$work/stack.log" 2>&1 &
  instance=$!
  pids+=($instance)
}
stop() {
  kill -TERM $running
  wait $running || fail "the run does not end well"
  kill -9 $instance 2> /dev/null
  wait $instance 2> /dev/null
  # All of the host's segments are its own again: 32 MiB of 2 KiB, whatever stages had.
  [ "$(sed -n 's/^  rx_q._segments_host //p' "$work/run.log" | awk '{ s += $1 } END { print s }')" = 16384 ] || fail "segments of the host are missing"
  [ "$(sed -n 's/^ *device_iommu_faults *//p' "$work/run.log" | tail -1 | grep -v '^0$')" = "" ] || fail "DMA outside what is mapped"
}
counter() { $martlet stats --socket "$socket" | sed -n "s/^ *$1  *//p" | grep . || echo 0; }
stage_process() { counter "stage_$1_process"; }
runs() { $martlet stage list --socket "$socket" | grep -q "^[0-9]* $1 .*: running"; }
pings() { $inside ping -n -q -c 1 -W 1 10.0.0.3 > /dev/null; }
fetches() {
  [ "$($inside curl -sS --max-time 100 "http://10.0.0.3/bytes/$1" | sha256sum)" = "$($martlet pattern "$1" | sha256sum)" ]
}
# What TCP of the kernel and of lwIP have thrown away for wrong sums: a packet that was changed only in part.
wrong_sums() {
  $inside grep -hE '^(Tcp|Udp|Ip):' /proc/net/snmp | awk '
    /InCsumErrors/ || /InHdrErrors/ { for (i = 1; i <= NF; i++) name[i] = $i; next }
    { for (i = 1; i <= NF; i++) if (name[i] == "InCsumErrors" || name[i] == "InHdrErrors") s += $i } END { print s + 0 }'
}

# What is wrong is said, and nothing starts.
cat > "$work/policy.toml" << 'P'
[[stage]]
name = "Wall"
kind = "firewall"
fails = "shut"
P
out=$($martlet policy check "$work/policy.toml" 2>&1) && fail "a bad policy"
[[ $out == *":2: name"* && $out == *":4: fails"* ]] || fail "no line for each mistake: $out"
printf '[default]\nclaims = ["any"]\n[[stage]]\nname = "wall"\nkind = "firewall"\nconfiguration = "rule x nonsense=3 drop"\n' > "$work/policy.toml"
out=$($martlet run --share "$socket" --policy "$work/policy.toml" --stack none --seconds 5 < /dev/null 2>&1) && fail "a run with a bad stage"
[[ $out == *"nonsense"* ]] || fail "no reason: $out"
printf '[default]\nclaims = ["any"]\n[[stage]]\nname = "wall"\nkind = "nobody"\n' > "$work/policy.toml"
out=$($martlet run --share "$socket" --policy "$work/policy.toml" --stack none --seconds 5 < /dev/null 2>&1) && fail "a run with an unknown kind"
[[ $out == *"nobody"* ]] || fail "no reason: $out"

# policy FAILS: three stages in a row.
policy() {
  cat > "$work/policy.toml" << P
[default]
claims = ["any"]

[[stage]]
name = "wall"
kind = "firewall"
configuration-file = "wall.rules"
fails = "$1"

[[stage]]
name = "slow"
kind = "shaper"
configuration = "rate=1Gbit/s burst=64KB queue=500 way=both"
fails = "$1"

[[stage]]
name = "some"
kind = "firewall"
configuration = "default accept"
packets = "rules"
fails = "$1"
P
}
printf 'default accept\nrule closed way=receive protocol=tcp destination-port=81 drop\n' > "$work/wall.rules"
policy closed
start
until_true pings || fail "no ping through stages"
fetches 20000000 || fail "a fetch through stages"
$inside curl -sS --max-time 1 http://10.0.0.3:81/ > /dev/null 2>&1 && fail "the wall is open"
[ "$(counter stage_wall_dropped)" -ge 1 ] || fail "the wall has dropped nothing"
[ "$(counter stage_wall_in_packets)" -ge 1000 ] && [ "$(counter stage_slow_in_packets)" -ge 1000 ] || fail "packets pass stages by"
[ "$(counter stage_some_in_packets)" = 0 ] || fail "packets go where no rule sends them"
$martlet rules add --socket "$socket" "rule few protocol=icmp stage=some" || fail "a rule with a stage"
pings || fail "no ping through a rule's stage"
[ "$(counter stage_some_in_packets)" -ge 1 ] || fail "the rule's stage has had nothing"
$martlet rules add --socket "$socket" "rule none protocol=icmp stage=nobody" 2> "$work/refused.log" && fail "a rule with a stage that is not there"
grep -q "no stage of that name" "$work/refused.log" || fail "no reason: $(cat "$work/refused.log")"
# Each is as confined as the host: read back from the kernel.
$martlet status --of $running > "$work/status.log" || fail "not all are confined"
[ "$(grep -c '^martlet-stage .*: confined$' "$work/status.log")" = 3 ] || fail "three stages are not confined"
# What stages let go is what instances get: the same bytes at each point.
if command -v tshark > /dev/null; then
  $martlet capture --socket "$socket" -i wire-rx,stage-rx,channel-rx -w "$work/points.pcapng" -c 24 icmp > "$work/capture.log" 2>&1 &
  capture=$!
  pids+=($capture)
  until_true grep -q "capturing" "$work/capture.log"
  for _ in 1 2 3 4 5 6 7 8; do pings || fail "no ping beside a capture"; done
  wait $capture || fail "the capture: $(cat "$work/capture.log")"
  points=$(tshark -r "$work/points.pcapng" -T fields -e frame.interface_name 2> /dev/null | sort -u | tr '\n' ' ')
  [[ $points == *"channel-rx:lwip "*"stage-rx:slow stage-rx:some stage-rx:wall wire-rx "* ]] || fail "points: $points"
  [ "$(tshark -r "$work/points.pcapng" -Y 'frame.interface_name == "wire-rx"' -T fields -e icmp.seq 2> /dev/null | head -3 | tr '\n' ' ')" = \
    "$(tshark -r "$work/points.pcapng" -Y 'frame.interface_name == "stage-rx:wall"' -T fields -e icmp.seq 2> /dev/null | head -3 | tr '\n' ' ')" ] || fail "other packets at the stage"
fi
echo "three stages: pinged, 20 MB fetched through two of them, one dropped what it should, a rule sent packets to the third"

# Killed and stopped under load. Bytes are checked throughout, and no sum is wrong that would have to be sent again.
for fails in closed open; do
  if [ $fails = open ]; then
    policy open
    start
    until_true pings || fail "no ping"
  fi
  before=$(counter "stage_wall_restarts")
  rm -f "$work/enough"
  (
    until [ -e "$work/enough" ]; do fetches 5000000 && echo fetched || { echo "wrong bytes"; exit 1; }; done
  ) > "$work/fetches.log" 2>&1 &
  fetches=$!
  pids+=($fetches)
  ($inside ping -n -q -i 0.01 -c 100000 10.0.0.3) > "$work/ping.log" 2>&1 &
  pids+=($!)
  for round in $(seq $kills); do
    name=$([ $((round % 2)) = 0 ] && echo wall || echo slow)
    until_true runs $name || fail "$name does not come back"
    kill -9 "$(stage_process $name)"
  done
  for name in wall slow; do
    until_true runs $name || fail "$name does not come back"
    [ "$(counter stage_${name}_restarts)" = $((kills / 2)) ] || fail "$name was started anew $(counter stage_${name}_restarts) times"
  done
  # One that hangs is seen, and ended.
  hung=$(stage_process wall)
  kill -STOP "$hung"
  gone() { [ ! -d "/proc/$hung" ]; }
  until_true gone || fail "a stopped stage stays"
  until_true runs wall || fail "a hung stage does not come back"
  [ "$(counter stage_wall_hangs)" = 1 ] || fail "the hang is not counted"
  sleep 0.5
  touch "$work/enough"
  wait $fetches || fail "what was fetched meanwhile: $(tail -3 "$work/fetches.log")"
  [ "$(grep -c fetched "$work/fetches.log")" -ge 1 ] || fail "nothing was fetched meanwhile"
  bypassed=$(($(counter stage_wall_bypassed) + $(counter stage_slow_bypassed)))
  down=$(($(counter stage_wall_dropped_down) + $(counter stage_slow_dropped_down)))
  lost=$(($(counter stage_wall_dropped_lost) + $(counter stage_slow_dropped_lost)))
  if [ $fails = closed ]; then
    [ $bypassed = 0 ] && [ $down -gt 0 ] || fail "closed: $bypassed passed by, $down dropped"
  else
    [ $down = 0 ] && [ $bypassed -gt 0 ] || fail "open: $bypassed passed by, $down dropped"
  fi
  [ "$(wrong_sums)" = 0 ] || fail "$(wrong_sums) packets had wrong sums"
  echo "fails=$fails: $kills kills and a hang under load, $(grep -c fetched "$work/fetches.log") fetches of 5 MB right, $bypassed passed by, $down dropped, $lost lost with a stage"

  # Another driver host takes over, and the stages with it.
  $martlet restart --socket "$socket" > "$work/restart.log" 2>&1 || fail "restart"
  for name in wall slow; do until_true runs $name || fail "$name is not there after a restart of the host"; done
  until_true pings || fail "no ping after a restart of the host"
  fetches 5000000 || fail "a fetch after a restart of the host"
  stop
done
# Address translation, end to end: the kernel sees only the outside address, and reaches the instance by a forward.
cat > "$work/policy.toml" << 'P'
[default]
claims = ["any"]

[[stage]]
name = "nat"
kind = "nat44"
configuration = "outside=10.0.0.200 inside=10.9.0.0/24 forward=tcp:8080:10.9.0.3:80 unknown=pass"
P
: > "$work/run.log"
$martlet run --share "$socket" --policy "$work/policy.toml" --stack none --seconds 100 < /dev/null > "$work/run.log" 2>&1 &
running=$!
pids+=($running)
until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
$inside ip address add 10.9.0.1/24 dev "$($inside ip -o -4 address | awk '/10\.0\.0\.1/ { print $2 }')"
mac=$(sed -n 's/.*confined; \([0-9a-f:]*\),.*/\1/p' "$work/run.log")
$inside ip neighbour replace 10.0.0.200 lladdr "$mac" dev "$($inside ip -o -4 address | awk '/10\.0\.0\.1/ { print $2 }')"
$martlet attach --socket "$socket" --stack lwip --address 10.9.0.3/24 --gateway 10.9.0.1 > "$work/stack.log" 2>&1 &
instance=$!
pids+=($instance)
forwarded() {
  [ "$($inside curl -sS --interface 10.0.0.1 --max-time 20 "http://10.0.0.200:8080/bytes/$1" | sha256sum)" = "$($martlet pattern "$1" | sha256sum)" ]
}
until_true forwarded 1000 || fail "nothing comes through the address translation"
forwarded 5000000 || fail "wrong bytes through the address translation"
[ "$(counter stage_nat_translated_in)" -gt 100 ] && [ "$(counter stage_nat_translated_out)" -gt 100 ] || fail "nothing is translated"
[ "$(wrong_sums)" = 0 ] || fail "$(wrong_sums) packets had wrong sums"
echo "NAT44: $(counter stage_nat_translated_out) packets out, $(counter stage_nat_translated_in) in, 5 MB right"
stop
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$pages" ] || fail "huge pages were not given back"
echo "stages: all well"
