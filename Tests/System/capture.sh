# Captures: begun before the run, over hosts that are killed, at the wire and at channels; read by tshark and tcpdump without a
# warning, byte for byte what the far end sent and got; a reader that is slow or killed costs packets of its own and nothing
# else.
set -u
. Tests/System/opening.bash
for tool in tshark tcpdump; do
  command -v $tool > /dev/null || { echo "skipped: $tool is not installed (Setup/packages.sh eyes)"; exit 0; }
done
# capture NAME ARGUMENT...: a capture in the background, into NAME.pcapng.
capture() {
  : > "$work/$1.log"
  $martlet capture --socket "$socket" -w "$work/$1.pcapng" "${@:2}" > "$work/$1.log" 2>&1 &
  capturing=$!
  pids+=($capturing)
}
captures() { until_true grep -q '^capturing at' "$work/$1.log" || fail "capture $1 does not begin"; }
end() {
  kill -INT "$1"
  wait "$1" || fail "a capture does not end well"
}
# Both programs read a file to its end and have nothing to say.
clean() {
  local out
  out=$(tcpdump -nn -r "$work/$1.pcapng" 2>&1 > "$work/$1.txt" | grep -v '^reading from file') && fail "tcpdump of $1: $out"
  tshark -n -r "$work/$1.pcapng" > "$work/$1.tshark" 2> "$work/$1.err" || fail "tshark does not read $1"
  grep -v 'Running as user' "$work/$1.err" && fail "tshark has a warning about $1"
  [ -z "$(tshark -n -r "$work/$1.pcapng" -Y '_ws.malformed || eth.fcs.status == 0' 2> /dev/null)" ] || fail "malformed packets in $1"
}
packets() { tcpdump -nn -r "$work/$1.pcapng" "${@:2}" 2> /dev/null | wc -l; }
# The bytes of each packet, one a line, without the checksum of TCP: the far end's kernel leaves it to its interface.
bytes() {
  tshark -n -r "$1" -T json -x 2> /dev/null | sed -n '/"frame_raw"/{n;s/[", ]//g;s/^\(.\{46\}06.\{52\}\)..../\1----/;p}'
}

# A filter that is none, a point that is none, a terminal: one line each.
out=$($martlet capture --socket "$socket" -w "$work/none" 'tcp port banana' 2>&1) && fail "a filter that is none is taken"
[[ $out == *"tcp port banana"* ]] || fail "no clear line: $out"
out=$($martlet capture --socket "$socket" -w "$work/none" -i wire 2>&1) && fail "a point that is none is taken"
[[ $out == *"wire-rx, wire-tx"* ]] || fail "no clear line: $out"

# Before there is a run.
capture early icmp
early=$capturing
until_true grep -q '^waiting for a run' "$work/early.log" || fail "it does not wait"
$martlet run --share "$socket" --stack lwip --seconds 120 < /dev/null > "$work/run.log" 2>&1 &
running=$!
pids+=($running)
until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
[ -n "$inside" ] || fail "no far end"
ping() { $inside ping -n -q -c 3 -i 0.05 -W 2 10.0.0.2; }
until_true ping || fail "no ping"
host() { $martlet stats --socket "$socket" | sed -n 's/^ *host_process //p'; }
captures early

# The far end's own capture is what the wire has.
far=$(sed -n 's/^.*far end.*interface \([a-z0-9]*\).*/\1/p' "$work/run.log" | head -1)
far=${far:-$($inside ip -o route get 10.0.0.2 | sed 's/.* dev \([^ ]*\).*/\1/')}
$inside tcpdump -B 32768 -i "$far" -w "$work/far.pcap" --immediate-mode -U 'icmp or tcp' > "$work/far.log" 2>&1 &
sniffer=$!
pids+=($sniffer)
until_true grep -q 'listening on' "$work/far.log" || fail "no capture at the far end"
capture both 'icmp or tcp'
both=$capturing
captures both
capture points -i wire-rx,channel-rx:lwip -i channel-tx icmp
points=$capturing
captures points
ping > /dev/null || fail "no ping"
$inside curl -sS --max-time 20 -o /dev/null http://10.0.0.2/bytes/100000 || fail "no fetch"
sleep 0.3
end $both
end $points
kill -INT $sniffer
wait $sniffer
for name in both points; do clean $name; done
bytes "$work/far.pcap" | sort > "$work/far.bytes"
bytes "$work/both.pcapng" | sort > "$work/both.bytes"
[ "$(wc -l < "$work/both.bytes")" -gt 50 ] || fail "hardly anything was captured"
cmp "$work/far.bytes" "$work/both.bytes" || fail "captured bytes are not the wire's"
# What was left to the device is complete in the file.
sums() { tshark -n -o tcp.check_checksum:TRUE -r "$work/both.pcapng" -Y "tcp.checksum.status == $1" 2> /dev/null | wc -l; }
[ "$(sums 0)" = 0 ] && [ "$(sums 1)" = "$(packets both tcp)" ] || fail "$(sums 0) checksums are wrong, $(sums 1) right"
[ "$(tshark -r "$work/points.pcapng" -T fields -e frame.interface_name 2> /dev/null | sort | uniq -c | awk '{ print $2 $1 }' | tr '\n' ' ')" = "channel-rx:lwip3 channel-tx:lwip3 wire-rx3 " ] ||
  fail "not each packet at each point: $(tshark -r "$work/points.pcapng" -T fields -e frame.interface_name 2> /dev/null | sort | uniq -c)"
echo "$(wc -l < "$work/both.bytes") packets, byte for byte those of the far end"

# The host is killed and replaced: the capture goes on.
before=$(packets early)
kill -9 "$(host)"
until_true ping || fail "no ping after the host was killed"
$martlet restart --socket "$socket" > /dev/null || fail "restart"
until_true ping || fail "no ping after a restart"
sleep 0.2
end $early
clean early
[ "$(packets early)" -ge $((before + 6)) ] || fail "the capture did not go on over other hosts"
echo "$(packets early) packets, captured before the run began and over two other hosts"

# One that does not read: nobody waits for it, and what is lost is counted.
capture slow -B 1 tcp
slow=$capturing
captures slow
kill -STOP $slow
[ "$($inside curl -sS --max-time 30 http://10.0.0.2/bytes/20000000 | sha256sum)" = "$($martlet pattern 20000000 | sha256sum)" ] ||
  fail "a fetch beside a capture that does not read"
kill -CONT $slow
end $slow
clean slow
lost=$(sed -n 's/.*; \([0-9]*\) lost because.*/\1/p' "$work/slow.log")
[ "$lost" -gt 1000 ] || fail "what was lost was not counted: $(tail -1 "$work/slow.log")"
matched=$(sed -n 's/.*; \([0-9]*\) matched.*/\1/p' "$work/slow.log")
[ $((matched - lost)) = "$(packets slow)" ] || fail "$matched matched, $lost lost, $(packets slow) written"
echo "a capture that does not read: $lost of $matched packets lost, 20 MB fetched meanwhile"

# One flow through the rooms, and what the command says.
timeout 20 $martlet trace --socket "$socket" icmp -c 8 > "$work/trace.log" 2>&1 &
tracing=$!
pids+=($tracing)
until_true grep -q '^tracing' "$work/trace.log" || fail "a trace does not begin"
ping > /dev/null || fail "no ping"
wait $tracing || fail "a trace does not end"
for room in 'in #[0-9]* wire-rx' 'in #[0-9]* channel-rx:lwip  +[0-9]* ns' 'out #[0-9]* channel-tx:lwip' 'out #[0-9]* wire-tx  +[0-9]* ns'; do
  [ "$(grep -c "$room" "$work/trace.log")" = 2 ] || fail "not twice in a trace: $room"
done

# Wireshark finds it by itself.
# Where extcap programs lie depends on Wireshark's version.
for folder in .config/wireshark/extcap .local/lib/wireshark/extcap; do
  mkdir -p "$work/$folder"
  printf '#!/bin/sh\nexec %s extcap "$@"\n' "$martlet" > "$work/$folder/martlet"
  chmod +x "$work/$folder/martlet"
done
HOME=$work timeout 20 tshark -n -l -i martlet -o "extcap.martlet.socket:$socket" -f icmp -c 6 > "$work/extcap.log" 2> "$work/extcap.err" &
shark=$!
pids+=($shark)
for round in $(seq 40); do
  kill -0 $shark 2> /dev/null || break
  ping > /dev/null
  sleep 0.1
done
wait $shark || fail "tshark does not capture by extcap: $(cat "$work/extcap.err")"
[ "$(grep -c 'ICMP.*Echo (ping)' "$work/extcap.log")" = 6 ] || fail "tshark by extcap: $(cat "$work/extcap.log")"
out=$($martlet extcap --extcap-interface martlet --extcap-capture-filter 'tcp port banana')
[[ $out == *banana* ]] || fail "Wireshark is not told of a filter that is none"
echo "traced from room to room; captured by tshark through extcap"

# Each packet has the rule that it met, by name: of the rules that were in force then, also those that are gone.
rules() { $martlet rules "$1" --socket "$socket" "${@:2}" 2>> "$work/rules.log" || fail "rules $1"; }
comments() { tshark -n -r "$work/$1.pcapng" -Y "frame.interface_name contains \"$2\"" -T fields -e frame.comment 2> /dev/null | sort | uniq -c | awk '{ print $2 $3 "x" $1 }' | tr '\n' ' '; }
rules add 'rule first protocol=tcp destination=192.0.2.1 drop' 'rule pings protocol=icmp icmp-type=8 to=lwip'
capture ruled -i wire-rx,wire-tx,channel-rx,channel-tx icmp
ruled=$capturing
captures ruled
timeout 20 $martlet trace --socket "$socket" icmp -c 10 > "$work/trace.log" 2>&1 &
tracing=$!
pids+=($tracing)
until_true grep -q '^tracing' "$work/trace.log" || fail "a trace does not begin"
$inside ping -n -q -c 2 -i 0.05 -W 2 10.0.0.2 > /dev/null || fail "no ping by a rule"
wait $tracing || fail "a trace does not end"
rules replace /dev/stdin <<< 'rule other destination=10.0.0.2 to=lwip'
$inside ping -n -q -c 3 -i 0.05 -W 2 10.0.0.2 > /dev/null || fail "no ping by another rule"
rules replace /dev/stdin <<< 'rule deaf protocol=icmp drop'
$inside ping -n -q -c 1 -W 1 10.0.0.2 > /dev/null && fail "a dropped ping is answered"
rules replace /dev/null
$inside ping -n -q -c 1 -W 2 10.0.0.2 > /dev/null || fail "no ping without rules"
[ "$($martlet stats --socket "$socket" | sed -n 's/^ *capture_0_written //p')" = 25 ] ||
  fail "what is written is not counted: $($martlet stats --socket "$socket" | grep capture)"
end $ruled
clean ruled
[ "$(comments ruled wire-rx)" = "x1 ruledeafx1 ruleotherx3 rulepingsx2 " ] || fail "rules at the wire: $(comments ruled wire-rx)"
[ "$(comments ruled channel-rx)" = "x1 ruleotherx3 rulepingsx2 " ] || fail "rules at the channel: $(comments ruled channel-rx)"
[ "$(comments ruled tx)" = "x12 " ] || fail "rules of what is sent: $(comments ruled tx)"
[ "$(grep -A 1 ' wire-rx ' "$work/trace.log" | grep -c 'in #[0-9]* steering  rule pings$')" = 2 ] || fail "no rules in a trace: $(cat "$work/trace.log")"
echo "packets with their rules, over three changes"

# What nobody may ask for is refused in one line, and does the run no harm.
python3 - "$socket" << 'P' > "$work/hostile.log" 2>&1 || fail "hostile requests"
import socket, sys
good = b"capture points=wire-rx snap=100 ring=1048576"
taken = "0006000000000001"
for messages in (
    [b"capture"], [b"capture points= snap=1 ring=1048576"], [b"capture points=wire snap=1 ring=1048576"],
    [b"capture points=wire-rx:lwip snap=1 ring=1048576"], [b"capture points=wire-rx snap=0 ring=1048576"],
    [b"capture points=wire-rx snap=1 ring=1048577"], [b"capture points=wire-rx snap=1 ring=1073741824"],
    [b"capture points=wire-rx snap=99999999999 ring=1048576"], [b"filter code=zz"], [b"filter code=-00600000000000a"],
    [b"filter code=0005000000000000", good], [b"filter code=0015ffff00000000" + taken.encode(), good],
    [b"filter code=00340000000000000006000000000000", good], [b"filter code=00ff000000000000", good],
    [b"filter code=" + b"0004000000000001" * 1000] * 5, [good, b"stats"],
):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(10)
    s.connect(sys.argv[1])
    for message in messages: s.send(message)
    answers = []
    while True:
        try: answer = s.recv(20000)
        except ConnectionResetError: break
        if not answer: break
        answers.append(answer)
    assert any(answer.startswith(b"refused reason=") for answer in answers), (messages[0][:60], answers)
P
ping > /dev/null || fail "no ping after hostile requests"

# Captures that are killed leave nothing, and give their places back.
open=$(ls /proc/$running/fd | wc -l)
for round in 1 2 3 4 5 6; do
  capture killed
  killed=$capturing
  captures killed
  ping > /dev/null
  kill -9 $killed
  wait $killed 2> /dev/null
done
no_more() { [ "$(ls /proc/$running/fd | wc -l)" -le "$open" ]; }
until_true no_more || fail "descriptors are left"
sleep 0.5
host_memory() { awk '/martlet-capture \(/ { inside = 1; next } /^[0-9a-f]+-/ { inside = 0 } inside && /^Rss:/ { s += $2 } END { print s + 0 }' /proc/$running/smaps; }
[ "$(host_memory)" -lt 200 ] || fail "$(host_memory) KiB of captures' memory are left"
for round in 1 2 3 4; do
  capture many$round arp
  captures many$round
done
$martlet capture --socket "$socket" -w "$work/fifth" arp > "$work/fifth.log" 2>&1 && fail "a fifth capture"
grep -q 'captures run already' "$work/fifth.log" || fail "no clear line: $(cat "$work/fifth.log")"

# The run ends: so do the captures, each with a whole file.
kill -TERM $running
wait $running || fail "the run does not end well"
for round in 1 2 3 4; do until_true test ! -e "/proc/${pids[-$round]}" || fail "a capture outlives its run"; done
clean many1

# A run whose instance has the device alone; the capture goes to a pipe.
$martlet run --control "$socket" --stack lwip --seconds 60 --fetch 0 < /dev/null > "$work/run.log" 2>&1 &
running=$!
pids+=($running)
until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
inside=$(sed -n "s/.*\(nsenter.*\) ping .*/\1/p" "$work/run.log")
[ -n "$inside" ] || fail "no far end"
$martlet capture --socket "$socket" -i wire-rx,wire-tx,channel-rx,channel-tx -c 12 -w - icmp 2> "$work/pipe.log" | cat > "$work/pipe.pcapng" &
piped=$!
captures pipe
ping > /dev/null || fail "no ping"
wait $piped
clean pipe
[ "$(packets pipe)" = 12 ] || fail "$(packets pipe) packets through a pipe, not 12"
kill -TERM $running
wait $running || fail "the run does not end well"
echo "a run with one instance: each packet at each point, through a pipe"
