# A NIC that instances share: they attach while it runs, serve, are killed; the others go on; everything comes back.
set -u
. Tests/System/opening.bash
instance=()
pages=$(cat /proc/sys/vm/nr_hugepages)

# A policy that cannot be used starts nothing, and each mistake has its line.
printf '[socket]\nmode = 660\n\n[[instance]]\nname = "a b"\n' > "$work/bad.toml"
out=$($martlet run --share "$socket" --policy "$work/bad.toml" < /dev/null 2>&1) && fail "a run with a bad policy"
[[ $out == *"bad.toml:2: mode"*$'\n'*"bad.toml:5: name"* ]] && [ ! -e "$socket" ] || fail "no line for each mistake: $out"
$martlet policy check "$work/bad.toml" 2> /dev/null && fail "a bad policy passes the check"
out=$($martlet run --share "$socket" --device vhost-user:/tmp/none < /dev/null 2>&1) && fail "vhost-user shared"
[[ $out == *"vhost-user"* ]] || fail "no clear line: $out"

head -c 16 /dev/urandom > "$work/token"
cat > "$work/policy.toml" << P
[socket]
users = ["root", $(id -u)]
connections = 12

[default]
claims = ["ipv4:10.0.0.0/24"]

[[instance]]
name = "web"
token-sha256 = "$(sha256sum < "$work/token" | cut -d' ' -f1)"
claims = ["ipv4:10.0.0.3"]
P
$martlet policy check "$work/policy.toml" || fail "the policy"

# start OPTION...: a run whose first instance is as the options say.
start() {
  # Emptied here, not by the run's own start: else what the run before has said would be found.
  : > "$work/run.log"
  $martlet run --share "$socket" --seconds 120 "$@" < /dev/null > "$work/run.log" 2>&1 &
  running=$!
  pids+=($running)
  until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
  inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
  host=$(sed -n 's/.*driver host \([0-9]*\) .*/\1/p' "$work/run.log")
  until_true pgrep -P $running -x martlet-standby || fail "no host stands by"
  open=$(ls /proc/$running/fd | wc -l)
}
stop() {
  kill -TERM $running
  wait $running || fail "the run does not end well"
  # All of the host's are its own again: 32 MiB in segments of 2 KiB.
  [ "$(sed -n 's/^  rx_q._segments_host //p' "$work/run.log" | awk "{ s += \$1 } END { print s }")" = 16384 ] || fail "segments of the host are missing"
}
# attach NUMBER OPTION...: lwIP at 10.0.0.NUMBER.
attach() {
  $martlet attach --socket "$socket" --stack lwip --address "10.0.0.$1/24" "${@:2}" > "$work/stack$1.log" 2>&1 &
  pids+=($!)
  attached=$!
  instance[$1]=$!
}
pings() { $inside ping -n -q -c 3 -i 0.05 -W 2 "10.0.0.$1"; }
fetches() {
  [ "$($inside curl -sS --max-time 60 "http://10.0.0.$1/bytes/$2" | sha256sum)" = "$($martlet pattern "$2" | sha256sum)" ]
}
instances() { [ "$($martlet memory --socket "$socket" | grep -c '^instance')" = "$1" ]; }
counter() { $martlet stats --socket "$socket" | sed -n "s/^  $1 //p"; }

start --policy "$work/policy.toml"
[ "$(stat -c %a "$socket")" = 600 ] || fail "the socket's mode"
attach 3 --name web
wait $attached && fail "no token is needed"
grep -q "refuses: token" "$work/stack3.log" || fail "no reason: $(cat "$work/stack3.log")"
attach 3
wait $attached && fail "what the policy keeps is given to another"
attach 3 --name web --token-file "$work/token"
for number in 4 5 6; do attach $number; done
until_true instances 4 || fail "not all have attached"
for number in 3 4 5 6; do until_true pings $number || fail "no ping of 10.0.0.$number"; done
fetches 5 20000000 || fail "a fetch from 10.0.0.5"
[ "$(counter rx_copied_packets)" -gt 100 ] || fail "copies are not counted"
[ "$(counter rx_copied_packets)" = "$(($(counter rx_i0_packets) + $(counter rx_i1_packets) + $(counter rx_i2_packets) + $(counter rx_i3_packets)))" ] ||
  fail "not one copy for each packet"
echo "four instances: pinged, 20 MB fetched, one copy for each packet"

# A peer that holds connections open and says nothing keeps nobody out, and is closed after 2 s.
python3 - "$socket" << 'P' > "$work/silent.log" 2>&1 &
import socket, sys, time
begin = time.time()
peers = []
for _ in range(40):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(sys.argv[1])
    peers.append(s)
first = peers[0]
first.settimeout(10)
assert b"timeout" in first.recv(4096) and first.recv(4096) == b""
assert 1.5 < time.time() - begin < 6, time.time() - begin
bad = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
bad.settimeout(10)
bad.connect(sys.argv[1])
bad.send(b"attach version=9 name=x")
assert bad.recv(4096).startswith(b"refused reason=version"), "version"
P
wait $! || fail "silent peers"
until_true pings 4 || fail "no ping after silent peers"

# kill -9 of one that serves: the others' connections live through it, and its address can be had again.
fetches 5 200000000 &
fetching=$!
for round in 1 2 3; do
  attach 9
  until_true pings 9 || fail "no ping of the one that is to be killed"
  kill -9 $attached
  wait $attached 2> /dev/null
done
until_true instances 4 || fail "a killed instance is left"
wait $fetching || fail "a fetch from another did not live through the kills"
for number in 3 4 5 6; do pings $number > /dev/null || fail "10.0.0.$number is gone after the kills"; done
id=$($martlet memory --socket "$socket" | sed -n 's/^instance \([0-9]*\) (web.*/\1/p')
$martlet close --socket "$socket" "$id" || fail "close"
until_true instances 3 || fail "a closed instance is left"
until_true grep -q "administrator has closed it" "$work/stack3.log" || fail "it was not told"
$martlet close --socket "$socket" "$id" 2> /dev/null && fail "a stale id is taken"
$martlet status --of $running > /dev/null || fail "the host is not confined"
for number in 4 5 6; do kill -9 "${instance[$number]}"; done
until_true instances 0 || fail "killed instances are left"
closed() { [ "$(ls /proc/$running/fd | wc -l)" -le "$open" ]; }
unmapped() { [ "$(ls -l "/proc/$1/map_files" 2> /dev/null | grep -c martlet-instance)" = 0 ]; }
# A connection that has just asked is closed when its end is seen.
until_true closed || fail "descriptors are left: $(ls -l /proc/$running/fd)"
until_true unmapped $running || fail "memory is left in the supervisor"
until_true unmapped "$host" || fail "memory is left in the host"
stop
echo "killed and closed: others served on, and all of theirs came back"

# The run's own first instance, of each kind, beside one that attaches; with both models.
for options in "--stack lwip" "--stack kernel" "--stack lwip --device emulated:e1000e --queues 2" "--stack lwip --queues 2 --mode poll"; do
  start $options
  attach 7
  until_true pings 2 || fail "no ping of the first instance ($options)"
  until_true pings 7 || fail "no ping of the second ($options)"
  fetches 7 5000000 || fail "a fetch from the second ($options)"
  stop
  echo "$options beside one that attaches"
done
start --stack sink
until_true instances 1 || fail "no sink"
stop
[ ! -e "$socket" ] || fail "the socket is left"
given_back() { [ "$(cat /proc/sys/vm/nr_hugepages)" = "$pages" ]; }
until_true given_back || fail "huge pages are left in the pool"

# The supervisor is killed: everything ends with it.
start --stack lwip
attach 7
until_true pings 7 || fail "no ping"
kill -9 $running
wait $running 2> /dev/null
until_true test ! -d "/proc/$host" || fail "the host outlives its supervisor"
until_true test ! -d "/proc/$attached" || fail "an instance outlives its supervisor"
until_true given_back || fail "huge pages are left in the pool after a kill"
echo "supervisor killed: all ended"
