# VirtioNet as a vhost-user front-end: on Martlet's own back-end, with ping, fetch and a back-end that is killed and comes
# back; and on DPDK's, where it is installed. What is missing here is said and left out.
set -u
. Tests/System/opening.bash
namespace=vhost-$$
clean_up() { ip netns del $namespace 2> /dev/null; }
inside() { ip netns exec $namespace "$@"; }
pings() { inside ping -n -q -c 5 -i 0.05 -W 2 "$1" > "$work/ping.log" 2>&1; }
fetches() {
  [ "$(inside curl -sS --max-time 60 "http://$1/bytes/$2" | sha256sum)" = "$($martlet pattern "$2" | sha256sum)" ]
}
running=0
# run ADDRESS ARGUMENTS...: starts a run in the background and waits until it is there.
run() {
  $martlet run --device "vhost-user:$work/socket" --address "$1/24" --seconds 120 --json "${@:2}" < /dev/null > "$work/run.log" 2>&1 &
  running=$!
  pids+=($running)
  until_true grep -q "started" "$work/run.log" || fail "the run does not start"
}
stop_run() {
  kill -TERM $running
  wait $running || fail "the run does not end well"
}

out=$($martlet run --device "vhost-user:$work/socket" --seconds 5 < /dev/null 2>&1) && fail "a run without a back-end"
[[ $out == *"no back-end can be reached"* ]] && [ "$(wc -l <<< "$out")" = 1 ] || fail "no clear line: $out"
echo "without a back-end: $out"

if ! ip netns add $namespace 2> /dev/null || ! [ -e /dev/net/tun ]; then
  echo "skipped: no network namespace or no /dev/net/tun to put the far end of the wire into"
  exit 0
fi
serve() {
  ip netns exec $namespace $martlet serve virtio-net --vhost-user "$work/socket" --wire tap:wire0 "$@" > "$work/serve.log" 2>&1 &
  serving=$!
  pids+=($serving)
  until_true grep -q ready "$work/serve.log" || fail "the back-end does not start"
  inside ip address replace 10.9.0.1/24 dev wire0
  inside ip link set wire0 up
}

for mode in adaptive poll interrupt; do
  serve --queues 2
  run 10.9.0.2 --mode $mode --queues 2
  pings 10.9.0.2 || fail "ping ($mode)"
  fetches 10.9.0.2 20000000 || fail "fetch ($mode)"
  stop_run
  kill -TERM $serving
  wait $serving
  grep -q "^specification_violations 0$" "$work/serve.log" || fail "violations ($mode)"
  grep -q "^iommu_faults 0$" "$work/serve.log" || fail "accesses outside the memory table ($mode)"
  grep "^refused" "$work/serve.log" && fail "the back-end refused something ($mode)"
  echo "own back-end, $mode, 2 queue pairs: ping, 20 MB fetched, no violation"
done

is_gone() { [ "$(grep -c 'is gone' "$work/run.log")" = "$1" ]; }
is_back() { [ "$(grep -c 'is back' "$work/run.log")" = "$1" ]; }
serve
run 10.9.0.2
host=$(sed -n 's/.*driver host \([0-9]*\) .*/\1/p' "$work/run.log")
instance=$(sed -n 's/.*stack instance \([0-9]*\) .*/\1/p' "$work/run.log")
fetches 10.9.0.2 100000000 &
fetching=$!
for round in 1 2; do
  sleep 0.3
  kill -9 $serving
  wait $serving 2> /dev/null
  until_true is_gone $round || fail "nobody has noticed"
  serve
  until_true is_back $round || fail "return $round"
  pings 10.9.0.2 || fail "no ping after return $round"
done
wait $fetching || fail "the fetch did not survive"
kill -0 "$host" && kill -0 "$instance" || fail "host or instance did not stay"
stop_run
[ "$(grep -c 'is gone' "$work/run.log")" = 2 ] && [ "$(grep -c 'is back' "$work/run.log")" = 2 ] || fail "not one line each way"
grep -q '"device_reconnects": 2' "$work/run.log" || fail "reconnects are not counted"
grep -q '"stack_segment_references": 0' "$work/run.log" || fail "segments were lost"
echo "own back-end, killed twice: ping after each return, a fetch of 100 MB lived through both, same host and instance"
kill -TERM $serving
wait $serving

# The end comes while the device is away and the queue threads rest: by the user, and by the host's own death.
for signal in TERM KILL; do
  serve --queues 2
  run 10.9.0.2 --queues 2
  host=$(sed -n 's/.*driver host \([0-9]*\) .*/\1/p' "$work/run.log")
  instance=$(sed -n 's/.*stack instance \([0-9]*\) .*/\1/p' "$work/run.log")
  kill -9 $serving
  wait $serving 2> /dev/null
  until_true is_gone 1 || fail "nobody has noticed"
  before=$(date +%s%N)
  if [ $signal = TERM ]; then stop_run; else
    kill -9 "$host"
    wait $running && fail "a run without its host ends well"
    grep -q "^martlet run: the driver host" "$work/run.log" || fail "no reason why the run ended"
  fi
  took=$((($(date +%s%N) - before) / 1000000))
  [ $took -lt 2000 ] || fail "the end took $took ms"
  ! kill -0 "$host" 2> /dev/null && ! kill -0 "$instance" 2> /dev/null || fail "host or instance is left"
  echo "own back-end, away: SIG$signal ended the run in $took ms"
done

if ! command -v dpdk-testpmd > /dev/null; then
  echo "skipped: dpdk-testpmd is not installed (apt-get install dpdk)"
  exit 0
fi
# testpmd MODE QUEUES DEVICES...: DPDK's back-end, and what else it forwards to.
testpmd() {
  ip netns exec $namespace timeout -s TERM 60 dpdk-testpmd --lcores 0@0,1@0 -n 1 -m 192 --no-huge --no-pci --no-telemetry \
    --file-prefix "$namespace" --vdev "net_vhost0,iface=$work/socket,queues=$2" "${@:3}" -- --forward-mode="$1" --nb-cores=1 \
    --rxq="$2" --txq="$2" --total-num-mbufs=4096 --disable-link-check --no-mlockall --stats-period=1 < /dev/null > "$work/testpmd.log" 2>&1 &
  serving=$!
  pids+=($serving)
  until_true [ -S "$work/socket" ] || fail "testpmd does not start"
}
stop_testpmd() {
  kill -TERM $serving
  wait $serving
  rm -f "$work/socket"
}
received() { [ "$(sed -n 's/.*"rx_q0_packets": \([0-9]*\).*/\1/p' "$work/run.log")" -gt "$1" ]; }

rm -f "$work/socket"
for queues in 1 2; do
  testpmd txonly $queues
  run 10.9.1.2 --queues $queues
  sleep 1
  stop_run
  received 1000 || fail "nothing from DPDK ($queues pairs)"
  [ $queues = 1 ] || grep -q '"rx_q1_packets": [1-9]' "$work/run.log" || fail "nothing in the second pair"
  stop_testpmd
done
echo "DPDK's back-end, 1 and 2 queue pairs: frames received"
testpmd io 1 --vdev net_tap0,iface=wire1
if ! until_true inside ip link show wire1; then
  echo "skipped: DPDK has no TAP to forward to"
  exit 0
fi
inside ip address add 10.9.1.1/24 dev wire1
inside ip link set wire1 up
run 10.9.1.2
pings 10.9.1.2 || fail "ping through DPDK"
fetches 10.9.1.2 5000000 || fail "fetch through DPDK"
kill -9 "$(pgrep -P $serving)" 2> /dev/null
wait $serving
rm -f "$work/socket"
until_true grep -q "is gone" "$work/run.log" || fail "DPDK's end is not noticed"
testpmd io 1 --vdev net_tap0,iface=wire1
until_true inside ip link show wire1
inside ip address replace 10.9.1.1/24 dev wire1
inside ip link set wire1 up
until_true grep -q "is back" "$work/run.log" || fail "DPDK is not found again"
pings 10.9.1.2 || pings 10.9.1.2 || fail "no ping after DPDK's return"
stop_run
stop_testpmd
echo "DPDK's back-end forwarding to a TAP: ping, 5 MB fetched, ping again after it was killed and started anew"
