# In poll mode, under load, the threads that move packets make no system call and take no page fault: those of the driver
# host, confined as ever, and the stack instance's. The host's control thread makes a few calls a second, however many
# packets there are.
set -u
martlet=.build/release/martlet
work=$(mktemp -d)
runner=
trap 'test -z "$runner" || kill -INT "$runner" 2> /dev/null; wait; rm -rf "$work"' EXIT
seconds=4

fail() { echo "$1"; tail -20 "$work/run"; exit 1; }
# process NAME: the one of the run with this program's name.
process() { for p in $(ps -o pid= --ppid "$runner"); do [ "$(cat /proc/$p/comm)" = "$1" ] && echo "$p"; done; }
# Minor and major page faults of a thread (proc(5), stat, fields 10 and 12; the name may hold a space).
faults() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $8 + $10 }'; }
calls() { awk '$NF == "total" { print $4 + 0; found = 1 } END { if (!found) print 0 }' "$1"; }
# Packets that all queue pairs have sent and received, by the lines that the run prints each second.
packets() { awk '/^rx [0-9]+ packets/ { sum += $2 + $7 } END { print sum + 0 }' "$work/run"; }

# start OPTION...: a run with traffic.
start() {
  $martlet run "$@" < /dev/null > "$work/run" 2>&1 &
  runner=$!
  for _ in $(seq 200); do grep -q "^ping: rtt" "$work/run" && break; sleep 0.1; done
  grep -q "^ping: rtt" "$work/run" || fail "the run did not start"
  # The heaps and rings have been touched everywhere once they have gone round.
  sleep 2
  host=$(process martlet-host)
  stack=$(process martlet-stack)
}

stop() {
  kill -INT "$runner"
  wait "$runner"
  runner=
}

# watch THREAD...: traces each for a while, into files by their numbers.
watch() {
  local thread
  for thread; do faults "$thread" > "$work/faults.$thread"; done
  packets > "$work/packets"
  for thread; do
    timeout -s INT $seconds strace -c -o "$work/calls.$thread" -p "$thread" 2> /dev/null &
    traces="${traces:-} $!"
  done
  wait $traces
  traces=
  moved=$(($(packets) - $(cat "$work/packets")))
}

start --mode poll --queues 2 --fetch 4000000000
threads=$(ls /proc/$host/task)
watch $threads $stack
[ "$moved" -gt 50000 ] || fail "only $moved packets in $seconds s are no load"
for thread in $threads $stack; do
  name=$(cat /proc/$thread/comm)
  made=$(calls "$work/calls.$thread")
  taken=$(($(faults "$thread") - $(cat "$work/faults.$thread")))
  echo "$name: $made system calls, $taken page faults, with $moved packets in $seconds s"
  if [ "$thread" = "$host" ]; then
    [ "$made" -le $((30 * seconds)) ] || fail "the control thread is busy: $(cat "$work/calls.$thread")"
  else
    # The stack's own allocations may ask for memory now and then; moving packets never does.
    allowed=0
    [ "$thread" = "$stack" ] && allowed=2
    [ "$made" -le $allowed ] || fail "$name made system calls: $(cat "$work/calls.$thread")"
    [ "$taken" -le $((allowed * 32)) ] || fail "$name took page faults"
  fi
done
stop

# The check itself: threads that sleep are seen to make calls.
start --mode interrupt --fetch 4000000000
watch $(ls /proc/$host/task | tail -1)
made=$(calls "$work/calls.$(ls /proc/$host/task | tail -1)")
echo "interrupt mode: $made system calls with $moved packets in $seconds s"
[ "$made" -gt 0 ] || fail "a thread that sleeps was not seen to call"
stop
