#!/bin/bash
# An instance registers 16 MB of its own memory and sends from it; another user reads it by a handle; handles are revoked
# and owners killed while packets are on their way. Nothing is left with the device, and the instance goes on.
set -u
cd "$(dirname "$0")/../.."
. Tests/System/opening.bash
clean_up() { exec 3>&-; }
until_said() { tries=400 until_true grep -q "$2" "$1" || fail "no '$2' in $1"; }
[ "$(id -u)" = 0 ] || { echo "skipped: only root can become other users"; exit 0; }
# Other users connect too.
chmod 755 "$work"
bytes=$((16 << 20))
reader=65534 stranger=65533

cat > "$work/policy.toml" << P
[socket]
mode = "0666"
users = [0, $reader, $stranger]

[[instance]]
name = "sender"
users = [0]
claims = ["ipv4:10.0.0.3"]
P
$martlet run --share "$socket" --policy "$work/policy.toml" --stack none --no-standby --seconds 120 < /dev/null > "$work/run.log" 2>&1 &
running=$!
pids+=($running)
until_said "$work/run.log" "until Ctrl-C"
line=$(grep "kernel's TCP/IP" "$work/run.log")
inside=${line#*: }
far=$(sed 's/.*TCP.IP, \([0-9.]*\).*/\1/' <<< "$line")
descriptors=$(ls /proc/$running/fd | wc -l)

$inside $martlet bench-end pattern-receiver $bytes > "$work/received.log" 2>&1 &
pids+=($!)
until_said "$work/received.log" ready
mkfifo "$work/answers"
$martlet bench-end registered-sender "$socket" $far 16 $reader < "$work/answers" > "$work/sender.log" 2>&1 &
sender=$!
pids+=($sender)
exec 3> "$work/answers"
until_said "$work/sender.log" "^capture"
until_said "$work/received.log" "received $bytes bytes, all right"
handle=$(sed -n 's/^capture //p' "$work/sender.log")
[ "$($martlet memory --socket "$socket" | grep -c "$((bytes >> 20)) MiB registered")" = 1 ] || fail "memory does not say what is registered"

# The reader sees what is being sent and can write none of it; to another user the handle is nothing.
as() { setpriv --reuid "$1" --regid "$1" --clear-groups "$martlet" bench-end memory-reader "$socket" "$handle" $bytes; }
as $reader > "$work/reader.log" 2>&1
[ "$(cat "$work/reader.log")" = $'captured true\nwrite: the broker refuses: no-right' ] || fail "the reader: $(cat "$work/reader.log")"
as $stranger > "$work/stranger.log" 2>&1 && fail "a stranger reads"
grep -q "unknown-handle" "$work/stranger.log" || fail "a stranger's refusal"
echo >&3

# Memory of a process that is killed.
until_said "$work/sender.log" "^process"
$martlet bench-end memory-owner "$socket" $sender > "$work/owner.log" 2>&1 &
owner=$!
pids+=($owner)
until_said "$work/owner.log" '^[0-9a-f]\{32\}$'
cat "$work/owner.log" >&3
until_said "$work/sender.log" "^registered 4194304"
sleep 0.3
kill -9 $owner
until_said "$work/sender.log" "^still there"
wait $sender || fail "the sender"
cat "$work/sender.log"
diff - <(sed 's/^capture .*/capture/; s/^process .*/process/' "$work/sender.log") << END || fail "something went otherwise"
sent $(((bytes + 1399) / 1400)) packets of $bytes bytes
capture
unregistered true
unregister twice: registered memory is not given back: the command was refused: not found
a guessed handle: memory cannot be registered: the command was refused: not found
revoked true
process
registered 4194304
owner's end heard true
still there true, 0 tags missing
END

is_closed() { [ "$(ls /proc/$running/fd | wc -l)" = "$descriptors" ]; }
until_true is_closed || fail "descriptors are left open"
$martlet stats --socket "$socket" > "$work/stats.log"
# What is 0 is not shown.
value() { sed -n "s/^ *$1  *//p" "$work/stats.log" | grep . || echo 0; }
[ "$(value iommu_faults) $(value device_iommu_faults)" = "0 0" ] || fail "IOMMU faults"
[ "$(value registrations_made)" = 3 ] && [ "$(value registrations_ended)" = 3 ] || fail "registrations are left"
[ "$(value registrations_revoked)" = 2 ] && [ "$(value instances_detached)" = 1 ] || fail "counts"
[ "$(value handles_handles)" = 0 ] && [ "$(value handles_connections)" = 0 ] || fail "handles are left"
kill -INT $running
wait $running || fail "the run does not end well"
pids=()
echo "16 MB sent in place, revoked, orphaned: nothing is left"
