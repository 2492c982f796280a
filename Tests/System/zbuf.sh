# What lwIP's applications send lies in their own memory, and is let go of to the last segment: after slow readers, a hundred
# aborted downloads, memory that runs out, and packets that are lost.
set -u
martlet=$PWD/.build/release/martlet
[ -e Sources/CLwIP/lwip/.version ] || { echo "without lwIP: left out"; exit 0; }
work=$(mktemp -d)
runner=
trap 'test -z "$runner" || kill -INT "$runner" 2> /dev/null; wait; rm -rf "$work"' EXIT
fail() { echo "FAILED: $1"; tail -40 "$work/run.log"; exit 1; }
inside() { nsenter -t "$namespace" -n "$@"; }
fetch() { inside curl -sS --max-time 60 "${@:2}" "http://10.0.0.2/bytes/$1"; }
counter() { grep -oE "\"$1\" ?: ?[0-9]+" "$work/run.log" | grep -oE '[0-9]+$' || echo 0; }
# arrives BYTES OPTION...: a download whose bytes are as expected.
arrives() {
  [ "$(fetch "$@" | sha256sum)" = "$($martlet pattern "$1" | sha256sum)" ] || fail "wrong bytes: $*"
}

# start OPTION...
start() {
  $martlet run --fetch 0 --seconds 300 --json "$@" < /dev/null > "$work/run.log" 2>&1 &
  runner=$!
  for _ in $(seq 200); do grep -q "try it" "$work/run.log" && break; sleep 0.1; done
  namespace=$(sed -n 's/^ *nsenter -t \([0-9]*\) -n curl.*/\1/p' "$work/run.log")
  [ -n "$namespace" ] || fail "the run did not start"
}
# Ends the run: nothing is held, and nothing was copied.
stop() {
  sleep 1
  kill -INT "$runner"
  wait "$runner"
  runner=
  echo "$(counter stack_zbuf_entries) entries, $(counter stack_zbuf_extended) writes that extended one," \
    "$(counter stack_zbuf_exhausted) times out of memory, $(counter stack_zbuf_waits) waits," \
    "$(counter stack_tx_lwip_copied_bytes) bytes moved by lwIP, of $(counter stack_tx_bytes) sent"
  [ "$(counter stack_zbuf_entries)" -gt 500 ] || fail "no entries were counted"
  [ "$(counter stack_tx_copied_bytes)" = 0 ] || fail "bytes were copied"
  [ "$(counter stack_segment_references)" = 0 ] || fail "segments are held: $(counter stack_segment_references) references"
}

start --memory 64
arrives 50000000
# A reader that is slower than the wire: its window closes, and only parts of a write are taken.
arrives 6000000 --limit-rate 2M

for round in $(seq 10); do
  curls=
  for one in $(seq 10); do
    # 5 ms to 95 ms, some slow: cut off with bytes at every stage of their way.
    fetch 1000000000 --max-time "$(printf '0.%03d' $(((round * 7 + one * 13) % 91 + 5)))" --limit-rate $((one % 3 * 20 + 1))M \
      > /dev/null 2>&1 &
    curls="$curls $!"
  done
  wait $curls
done
arrives 1000000

if inside tc qdisc add dev martlet0 root netem loss 10% 2> /dev/null; then
  arrives 20000000
  inside tc qdisc del dev martlet0 root
else
  echo "this kernel has no netem: losses are left to LwIPStackTests"
fi
stop
[ "$(counter stack_zbuf_extended)" -gt 100 ] || fail "no write was taken in parts"

# As little memory as there can be, and more slow readers than it is enough for: applications wait, and all get their bytes.
start --memory 16
curls=
for one in $(seq 12); do
  arrives 4000000 --limit-rate 2M &
  curls="$curls $!"
done
for one in $curls; do wait "$one" || fail "a download that had to wait for memory"; done
stop
[ "$(counter stack_zbuf_waits)" -gt 0 ] || fail "memory did not run out"
exit 0
