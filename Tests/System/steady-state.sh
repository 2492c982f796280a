# The system calls and page faults of a driver host and its stack instance, while packets move. In poll mode no thread of
# the host makes any: not those that move packets, confined as ever, and not the control thread, which sleeps until
# something happens. In adaptive mode threads sleep and wake, but read the clock without a system call.
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
# A sleep that strace itself has interrupted begins anew with restart_syscall(2), which is no call of the thread.
calls() { awk '$NF == "total" { sum += $4 } $NF == "restart_syscall" { sum -= $4 } END { print sum + 0 }' "$1"; }
# Packets that all queue pairs have sent and received, by the lines that the run prints each second.
packets() { awk '/^rx [0-9]+ packets/ { sum += $2 + $7 } END { print sum + 0 }' "$work/run"; }
per_million() { echo $((($1 * 1000000 + moved / 2) / moved)); }

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
  [ "$moved" -gt 10000 ] || fail "only $moved packets in $seconds s are no load"
}

# sum THREAD...: what they have made and taken together, also for each million packets.
sum() {
  local thread
  made=0
  taken=0
  for thread; do
    made=$((made + $(calls "$work/calls.$thread")))
    taken=$((taken + $(faults "$thread") - $(cat "$work/faults.$thread")))
  done
}

start --mode poll --queues 2 --fetch 4000000000
threads=$(ls /proc/$host/task)
[ "$(wc -w <<< "$threads")" = 3 ] || fail "a host with 2 queue pairs has other threads than $threads"
watch $threads $stack
sum $stack
echo "poll, stack instance: $made system calls, $taken page faults, with $moved packets in $seconds s"
# The stack's own allocations may ask for memory now and then; moving packets never does.
[ "$made" -le 2 ] && [ "$taken" -le 64 ] || fail "the stack made system calls: $(cat "$work/calls.$stack")"
sum $threads
echo "poll, all threads of the host: $(per_million $made) system calls and $(per_million $taken) page faults per million packets ($made and $taken with $moved packets in $seconds s)"
[ "$(per_million $made)" = 0 ] || fail "the host made system calls: $(cat "$work"/calls.*)"
[ "$(per_million $taken)" = 0 ] || fail "the host took page faults"
stop
rm -f "$work"/calls.*

# Threads that sleep are seen to make calls, so that the check above is one. They read the clock very often, and the
# kernel's page of code (vdso(7)) answers.
for mode in adaptive interrupt; do
  start --mode $mode --queues 2 --fetch 4000000000
  threads=$(ls /proc/$host/task)
  watch $threads
  sum $threads
  echo "$mode, all threads of the host: $(per_million $made) system calls and $(per_million $taken) page faults per million packets ($made and $taken with $moved packets in $seconds s)"
  [ "$made" -gt 0 ] || fail "threads that sleep were not seen to call"
  grep -h clock_gettime "$work"/calls.* && fail "the clock is read by system calls"
  stop
  rm -f "$work"/calls.*
done
exit 0
