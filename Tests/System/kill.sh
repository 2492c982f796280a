# kill -9 of each process in turn: another driver host goes on; all else ends with a reason, and nothing is left.
set -u
martlet=.build/release/martlet
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
complain() { echo "$1"; cat "$log"; code=1; }
before=$(cat /proc/sys/vm/nr_hugepages)

# Processes below a supervisor.
below() { ps -o pid= --ppid "$1" | tr -d ' '; }
find_below() { for p in $(below "$1"); do grep -q "$2" <(tr '\0' ' ' < /proc/$p/cmdline; cat /proc/$p/comm) && echo $p; done; }

for victim in martlet-host martlet-stack "serve virtio-net" hold-namespace supervisor; do
  # Emptied here, not by the run's own start: else what the run before has said would be found.
  : > "$log"
  $martlet run --seconds 60 --fetch 0 --queues 2 < /dev/null > "$log" 2>&1 &
  runner=$!
  for _ in $(seq 300); do grep -q "try it" "$log" && break; sleep 0.1; done
  grep -q "try it" "$log" || { complain "$victim: the run did not start"; kill $runner; wait $runner; continue; }
  children=$(below $runner)
  [ "$(wc -w <<< "$children")" -ge 4 ] || complain "there should be 4 processes: $children"
  if [ "$victim" = supervisor ]; then target=$runner; else target=$(find_below $runner "$victim"); fi
  kill -9 $target
  if [ "$victim" = martlet-host ]; then
    for _ in $(seq 100); do grep -q "driver host [0-9]* goes on" "$log" && break; sleep 0.1; done
    kill -INT $runner
  fi
  wait $runner 2> /dev/null
  status=$?
  if [ "$victim" = martlet-host ]; then
    [ $status = 0 ] || complain "$victim killed: the run ended with $status"
    grep -q "driver host [0-9]* goes on" "$log" || complain "$victim killed: no other one"
  elif [ "$victim" = supervisor ]; then
    [ $status = 137 ] || complain "supervisor: exit $status"
  else
    [ $status = 1 ] || complain "$victim killed: the run ended with $status"
    [ "$(grep -c '^martlet run: ' "$log")" = 1 ] || complain "$victim killed: no reason in one line"
  fi
  for _ in $(seq 30); do
    left=""
    for p in $children; do [ -d /proc/$p ] && ! grep -q '^State:.Z' /proc/$p/status && left="$left $p"; done
    [ -z "$left" ] && break
    sleep 0.1
  done
  [ -z "$left" ] || complain "$victim killed: left over: $left"
done
ip link show 2> /dev/null | grep martlet && complain "an interface is left"
[ "$(cat /proc/sys/vm/nr_hugepages)" = "$before" ] || complain "huge pages are left in the pool"
exit $code
