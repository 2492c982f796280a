# Instances that break the channel's rules, in processes of their own, while two others serve: only the offender is
# closed, with a reason that it can read, and the others lose no packet.
set -u
. Tests/System/opening.bash
chmod 755 "$work"
pingers=()
fetchers=()
compiler=$(command -v gcc || command -v clang) || { echo "skipped: no C compiler"; exit 0; }
$compiler -std=gnu11 -O2 -pthread -I Sources/CMartletChannel/include Tests/System/hostile-instance.c -o "$work/hostile" \
  2> "$work/compiler.log" || fail "the hostile instance does not compile"

: > "$work/run.log"
$martlet run --share "$socket" --seconds 120 --queues 2 < /dev/null > "$work/run.log" 2>&1 &
running=$!
pids+=($running)
until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
host=$(sed -n 's/.*driver host \([0-9]*\) .*/\1/p' "$work/run.log")
counter() { $martlet stats --socket "$socket" | sed -n "s/^  $1 //p"; }
instances() { [ "$($martlet memory --socket "$socket" | grep -c '^instance')" = "$1" ]; }
resident() { awk '/^RssAnon/ { print $2 }' "/proc/$1/status"; }
pings() { $inside ping -n -q -c 3 -i 0.05 -W 2 "10.0.0.$1"; }
for number in 3 4; do
  $martlet attach --socket "$socket" --stack lwip --address "10.0.0.$number/24" > "$work/polite$number.log" 2>&1 &
  pids+=($!)
  until_true pings $number || fail "no ping of 10.0.0.$number"
done
# Once, so that what is made at the first attach is there.
"$work/hostile" "$socket" 10.0.0.9 S26 > /dev/null
until_true instances 2 || fail "an instance is left"
sleep 0.3
open=$(($(ls /proc/$running/fd | wc -l) + $(ls /proc/$host/fd | wc -l)))
before=$(($(resident $running) + $(resident $host)))
closed_before=$(counter instances_closed_by_host)

expected=$($martlet pattern 300000 | sha256sum)
: > "$work/wrong.log"
: > "$work/fetched.log"
for number in 3 4; do
  $inside ping -n -i 0.02 -W 5 "10.0.0.$number" > "$work/ping$number.log" 2>&1 &
  pingers+=($!)
  pids+=($!)
  (while [ ! -e "$work/over" ]; do
    sum=$($inside curl -sS --max-time 20 "http://10.0.0.$number/bytes/300000" 2>> "$work/wrong.log" | sha256sum)
    [ "$sum" = "$expected" ] && echo >> "$work/fetched.log" || echo "wrong bytes from $number" >> "$work/wrong.log"
    sleep 0.05
  done) &
  fetchers+=($!)
  pids+=($!)
done
# Packets come for the hostile one too, whether it answers or not.
read -r _ _ device _ station _ < <($inside ip neighbour show 10.0.0.3)
$inside ip neighbour replace 10.0.0.9 lladdr "$station" dev "$device" nud permanent || fail "no neighbour"
$inside ping -n -q -i 0.005 10.0.0.9 > /dev/null 2>&1 &
pids+=($!)

cases=0
# try CASE PATTERN: what the offender must be able to read.
try() {
  local out
  out=$(timeout 20 "$work/hostile" "$socket" 10.0.0.9 "$1" 10.0.0.3 2>&1)
  [[ $out =~ ^($2)$ ]] || fail "$1: '$out', not '$2'"
  cases=$((cases + 1))
}
# The program may see the end of its channel before the reason has come.
jump="closed: (index_jump|an index jumped)"
outside="closed: (outside_its_memory|a piece was outside the program's memory)"
foreign="closed: (not_its_segment|a segment was not the program's)"
pieces="closed: (endless_packet|a packet had too many pieces)"
try S1 "$jump"
try S2 "$jump"
try S2-free "$jump"
try S4 alive
try S5 "$outside"
try S6 "$outside"
try S7 "$outside"
try S8 "$outside"
try S9 "$foreign|$outside"
try S10 "$foreign"
try S11 "$foreign"
try S11-free "$foreign"
try S12 "$foreign"
try S13 "$foreign"
# Given back twice, a segment may have come with another packet in between.
try S14 "$foreign|alive"
try S15 "$foreign"
try S16 "$outside|$jump|alive"
try S17 alive
try S18 gone
try S19 killed
try S20 alive
try S21 "closed: (message|flood).*"
try S21-doorbells alive
try doorbells-that-block alive
try doorbells-stolen alive
try S22-silent "refused reason=timeout.*"
try S23-arena punched
try S23-channel punched
try S24 "refused: claim.*"
try S25-version "refused reason=version.*"
try S25-descriptors "refused reason=descriptors.*"
try S25-late "closed: descriptors.*"
try S26 alive
try S27 alive
try S29 "$pieces"
try S30 alive
try offload "closed: (bad_offload|offload metadata made no sense)"
try garbage "closed: .*"
try S22-not-ready "closed reason=timeout.*"

until_true instances 2 || fail "a hostile instance is left"
touch "$work/over"
for pid in "${fetchers[@]}"; do wait $pid; done
for pid in "${pingers[@]}"; do kill -INT $pid; wait $pid; done
for number in 3 4; do
  # The very last one may be on its way when ping is told to end.
  got=$(grep -c icmp_seq= "$work/ping$number.log")
  sent=$(sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' "$work/ping$number.log" | sort -n | tail -1)
  [ "${sent:-0}" -gt 200 ] && [ "$sent" = "$got" ] || fail "10.0.0.$number answered ${got:-0} of ${sent:-0} pings"
  echo "10.0.0.$number answered $got of $sent pings"
done
[ ! -s "$work/wrong.log" ] || fail "fetches: $(cat "$work/wrong.log")"
[ "$(wc -l < "$work/fetched.log")" -ge 20 ] || fail "only $(wc -l < "$work/fetched.log") fetches"
closed=$(($(counter instances_closed_by_host) - closed_before))
[ $closed -ge 17 ] || fail "only $closed closed by the host are counted"
[ "$(counter refused_version)" -ge 1 ] && [ "$(counter offences_descriptors)" -ge 1 ] || fail "refusals are not counted"
sleep 0.5
after=$(($(ls /proc/$running/fd | wc -l) + $(ls /proc/$host/fd | wc -l)))
[ $after -le "$open" ] || fail "$after descriptors, $open before"
[ "$(ls -l /proc/$running/map_files /proc/$host/map_files 2> /dev/null | grep -c martlet-instance)" -le 4 ] || fail "memory is left"
grown=$(($(resident $running) + $(resident $host) - before))
[ $grown -lt 8192 ] || fail "$grown KiB more than before"
kill -TERM $running
wait $running || fail "the run does not end well"
[ "$(sed -n 's/^  rx_q._segments_host //p' "$work/run.log" | awk "{ s += \$1 } END { print s }")" = 16384 ] || fail "segments of the host are missing"
echo "$cases offences: $closed closed by the host, $(wc -l < "$work/fetched.log") fetches right, $after descriptors of $open, $grown KiB more"
