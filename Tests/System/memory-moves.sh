# Memory moves while traffic runs: an instance grows from 64 MiB to 1 GiB and back, an idle instance's memory goes to
# another and comes back, one that does not let go is ended, and what is free goes back to a system that is short of it.
set -u
. Tests/System/opening.bash
[ -e Sources/CLwIP/lwip/.version ] || { echo "without lwIP: left out"; exit 0; }
tries=400
group=/sys/fs/cgroup/memory/martlet-hog-$$
clean_up() { [ ! -d "$group" ] || rmdir "$group"; }
pages=$(cat /proc/sys/vm/nr_hugepages)

cat > "$work/policy.toml" << P
[memory]
budget = 1152
idle-milliseconds = 1000
let-go-milliseconds = 2000
pressure = "some 1000 2000000"

[default]
claims = ["any"]
memory = 64
maximum-memory = 1024
P
$martlet policy check "$work/policy.toml" || fail "the policy"

# start OPTION...
start() {
  : > "$work/run.log"
  $martlet run --share "$socket" --policy "$work/policy.toml" --stack none --seconds 300 "$@" < /dev/null > "$work/run.log" 2>&1 &
  running=$!
  pids+=($running)
  until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
  inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
}
stop() {
  kill -TERM $running
  wait $running || fail "the run does not end well"
  [ "$(sed -n 's/^ *device_iommu_faults *//p' "$work/run.log" | tail -1 | grep -v '^0$')" = "" ] || fail "DMA outside what is mapped"
}
attach() {
  $martlet attach --socket "$socket" --stack lwip --address "10.0.0.$1/24" > "$work/stack$1.log" 2>&1 &
  pids+=($!)
  until_true $inside ping -n -q -c 1 -W 1 "10.0.0.$1" || fail "no ping of 10.0.0.$1"
}
# id NUMBER: of the instance that was attached as the NUMBERth of those that there are.
id() { $martlet memory --socket "$socket" | sed -n 's/^instance \([0-9]*\) .*/\1/p' | sed -n "$1p"; }
# has ID MIB
has() { $martlet memory --socket "$socket" | grep -q "^instance $1 .*: $2 MiB now"; }
moves() { $martlet "$1" --socket "$socket" "$2" "$3" > "$work/move.log" 2>&1; }
counter() { $martlet stats --socket "$socket" | sed -n "s/^ *$1 *//p"; }
# Bytes of pages that the instances' memory has, by the files that a process has open, some of them twice.
held() {
  for file in /proc/$1/fd/*; do
    case $(readlink "$file") in /memfd:martlet-instance*) stat -Lc '%i %b' "$file" ;; esac
  done | sort -u | awk '{ s += $2 * 512 } END { print s + 0 }'
}
all_sent_has_left() { [ "$(counter tx_i0_packets)" = "$(counter device_tx_packets)" ]; }
# grow_to ID MIB: an instance's wish that is refused halfway keeps what it has got so far.
grow_to() {
  now=$($martlet memory --socket "$socket" | sed -n "s/^instance $1 .*: \([0-9]*\) MiB now.*/\1/p")
  [ "$now" = "$2" ] || moves grow "$1" $(($2 - now))
}
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# under_traffic PAGES: grows and shrinks three times.
under_traffic() {
  rm -f "$work/enough"
  start --pages "$1"
  attach 3
  one=$(id 1)
  before=$(held $running)
  [ "$before" = $((64 << 20)) ] || fail "64 MiB are guaranteed, $before bytes are held"

  # Traffic throughout: a download whose bytes are checked, again and again, and pings that must all come back. Not at full
  # rate: lwIP drops its own echo replies when downloads fill its ring, with and without moves.
  wanted=$($martlet pattern 5000000 | sha256sum)
  (
    until [ -e "$work/enough" ]; do
      [ "$($inside curl -sS --max-time 60 --limit-rate 20M http://10.0.0.3/bytes/5000000 | sha256sum)" = "$wanted" ] ||
        { echo "wrong bytes"; exit 1; }
      echo fetched
    done
  ) > "$work/fetches.log" 2>&1 &
  fetches=$!
  pids+=($fetches)
  (until [ -e "$work/enough" ]; do $inside ping -n -q -c 50 -i 0.01 -W 10 10.0.0.3; done) > "$work/ping.log" 2>&1 &
  ping=$!
  pids+=($ping)
  sleep 1
  for round in 1 2 3; do
    begin=$(milliseconds)
    moves grow $one 960 || fail "no growth to 1 GiB"
    grown=$(milliseconds)
    has $one 1024 || fail "not 1 GiB"
    [ "$(held $running)" = $((1 << 30)) ] || fail "$(held $running) bytes are held, of 1 GiB"
    sleep 0.5
    back=$(milliseconds)
    moves shrink $one 960 || fail "no shrinking to 64 MiB"
    has $one 64 || fail "not 64 MiB"
    [ "$(held $running)" = "$before" ] || fail "$(held $running) bytes are held at the end, $before at the start"
    echo "64 MiB to 1 GiB in $((grown - begin)) ms, back in $(($(milliseconds) - back)) ms, under traffic, pages of $1"
  done
  touch "$work/enough"
  wait $fetches || fail "what was fetched meanwhile"
  wait $ping
  sent=$(awk '/packets transmitted/ { s += $1 } END { print s + 0 }' "$work/ping.log")
  received=$(awk '/packets transmitted/ { s += $4 } END { print s + 0 }' "$work/ping.log")
  # lwIP drops echo replies of its own where a download has filled its ring just then. Nobody else may drop anything.
  [ "$sent" -ge 100 ] && [ $((received * 20)) -ge $((sent * 19)) ] ||
    fail "$received of $sent pings came back: $($martlet stats --socket "$socket" | grep -E 'drop|refused|_packets|full|error')"
  until_true all_sent_has_left || fail "$(counter tx_i0_packets) packets were sent, $(counter device_tx_packets) have left"
  echo "$received of $sent pings came back, $(grep -c fetched "$work/fetches.log") downloads of 5 MB were right"
  for name in rx_i0_dropped_ring_full rx_i0_dropped_no_segment rx_i0_dropped_budget tx_i0_refused_source; do
    [ "$(counter $name || echo 0)" = "" ] || [ "$(counter $name)" = 0 ] || fail "$name $(counter $name)"
  done
}

under_traffic 4K
stop
under_traffic 2M

# Never below the guarantee, never above the maximum.
moves shrink $one 2 || fail "nothing to shrink is no failure"
has $one 64 || fail "it is below its guarantee"
moves grow $one 962 && fail "more than the maximum"
grep -q "may not have as much" "$work/move.log" || fail "no reason: $(cat "$work/move.log")"

# The budget is 1152: what one has that is idle goes to the other, and comes back.
attach 4
two=$(id 2)
moves grow $one 960 || fail "no growth of the first"
# An instance is idle when nothing has come for a second: the neighbour's ARP requests are something.
until_true grow_to $two 576 || fail "nothing for the second: $(cat "$work/move.log")"
has $two 576 && has $one 576 || fail "the first had to give 448 MiB: $($martlet memory --socket "$socket")"
until_true grow_to $one 1024 || fail "it does not come back: $(cat "$work/move.log")"
has $one 1024 || fail "it has not come back"
$inside ping -n -q -c 20 -i 0.02 -W 5 10.0.0.4 > /dev/null || fail "no ping of who gave it back"
$martlet memory --socket "$socket" | tee "$work/memory.log"
moves shrink $one 960 && moves shrink $two 512 || fail "shrinking"

# A process that takes everything and answers nothing: asked for memory that others need, it is ended. What it still has
# open and mapped has no pages any more.
cat > "$work/hostile.py" << 'P'
import mmap, os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(sys.argv[1])
s.send(b"attach version=2 name=hostile claims=ipv4:10.0.0.66")
text, descriptors, _, _ = socket.recv_fds(s, 16384, 64)
assert text.startswith(b"welcome"), text
s.send(b"ready")
print("id", [w for w in text.split() if w.startswith(b"id=")][0][3:].decode(), flush=True)
maps = []
end = time.time() + 60
while time.time() < end:
    text, found, _, _ = socket.recv_fds(s, 16384, 64)
    if text.startswith(b"extent"):
        memory = mmap.mmap(found[0], int(text.split(b"bytes=")[1]))
        for page in range(0, len(memory), 4096): memory[page] = 0x5a
        maps.append((memory, found[0]))
        print("has", sum(len(m) for m, _ in maps) >> 20, flush=True)
    if text.startswith(b"closed") or not text: break
print(text.decode(), flush=True)
time.sleep(1.5)
for memory, descriptor in maps:
    print("blocks", os.fstat(descriptor).st_blocks, flush=True)
P
python3 "$work/hostile.py" "$socket" > "$work/hostile.log" 2>&1 &
hostile=$!
pids+=($hostile)
until_true grep -q "^id" "$work/hostile.log" || fail "the hostile one has not attached"
moves grow "$(sed -n 's/^id //p' "$work/hostile.log")" 896 || fail "no growth of the hostile one"
until_true grep -q "^has 896" "$work/hostile.log" || fail "it has not got its memory"
sleep 1.5
moves grow $one 512 || fail "the hostile one keeps it: $(cat "$work/move.log")"
wait $hostile || fail "the hostile one: $(cat "$work/hostile.log")"
grep -q "^closed reason=memory" "$work/hostile.log" || fail "it has not heard why"
[ "$(grep -c '^blocks 0$' "$work/hostile.log")" = "$(grep -c '^blocks' "$work/hostile.log")" ] || fail "pages stay with it: $(cat "$work/hostile.log")"
[ "$(counter instances_closed_for_memory)" = 1 ] || fail "it is not counted"
$inside ping -n -q -c 20 -i 0.02 -W 5 10.0.0.4 > /dev/null || fail "others are hurt"
echo "who does not let go is ended, and its pages are free"

# A program that is short of memory in a group of its own: the kernel says so, and what is above the guarantees goes back.
if ! grep -q "(/.*pressure" "$work/memory.log"; then
  echo "without pressure stall information: $(grep 'memory was short' "$work/memory.log")"
elif ! mkdir "$group" 2> /dev/null || ! echo $((32 << 20)) > "$group/memory.limit_in_bytes"; then
  echo "no group with a limit of memory can be made here: pressure is left out"
else
  has $one 576 || fail "the first has not what it had"
  head -c 100000000 /dev/zero > "$work/large"
  (
    echo $BASHPID > "$group/cgroup.procs"
    for _ in $(seq 30); do
      [ ! -e "$work/relieved" ] || break
      cat "$work/large" > /dev/null
      dd if=/dev/zero of="$work/written" bs=1M count=64 2> /dev/null
    done
  ) > /dev/null 2>&1 &
  hog=$!
  pids+=($hog)
  until_true has $one 64 || relieved=no
  touch "$work/relieved"
  wait $hog
  [ "${relieved:-yes}" = yes ] || fail "memory is short and nobody gives any: $(counter memory_pressure_events) events"
  echo "memory was short $(counter memory_pressure_events) times: what was above the guarantees went back"
fi
stop
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$pages" ] || fail "huge pages were not given back"
echo "memory moves: all well"
