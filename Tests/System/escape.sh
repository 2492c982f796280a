# A hostile driver tries to get out of its driver host, in each way that there is, each in a run of its own: every attempt
# ends the host or is refused as expected, and the supervisor names the call. The same attempts, unconfined, go otherwise.
set -u
martlet=$PWD/.build/release/martlet
escape=$PWD/.build/release/martlet-escape
stack=$PWD/.build/release/martlet-stack
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
refused=0
complain() { echo "FAILED: $1"; failures=$((failures + 1)); }
[ -x "$escape" ] || swift build -c release --static-swift-stdlib --product martlet-escape > "$work/build.log" 2>&1 \
  || { cat "$work/build.log"; exit 1; }

"$escape" --list > "$work/list" < /dev/null
(cd "$work" && "$escape" --control < /dev/null > control 2> /dev/null)

# attempt NAME EXPECTATION COMMAND...: what the supervisor says of it.
attempt() {
  local name=$1 expectation=$2 said
  shift 2
  said=$("$@" --without "$name" --seconds 10 --fetch 0 --failures 1 < /dev/null 2>&1 | grep "driver host.*\(killed\|ended by\|attempt\)" | tail -1)
  case $expectation in
    killed) [[ $said == *"the driver host was killed for a system call that its filter does not allow"* ]] ;;
    "killed "*) [[ $said == *"was killed for a system call that its filter does not allow: ${expectation#killed }("* ]] ;;
    *) [[ $said == *"$expectation"* ]] ;;
  esac || { complain "$name: expected '$expectation', got '$said'"; return; }
  refused=$((refused + 1))
}

while read -r name expectation; do
  attempt "$name" "$expectation" "$martlet" run --host "$escape"
done < "$work/list"
# While the device is set up a few calls more are allowed, none that leads out.
for name in openat execve socket-inet fork clone-namespaces thread mmap-exec mprotect-exec ptrace kill-other handle-sigsys \
  unshare-net mount memfd prctl-dumpable prlimit-other setuid bpf io-uring i386; do
  attempt "start:$name" "$(sed -n "s/^$name //p" "$work/list")" "$martlet" run --host "$escape"
done
echo "$refused attempts refused, $(wc -l < "$work/list") of them in the loop"
[ "$refused" -ge 120 ] || complain "too few attempts: $refused"

# Unconfined none is killed for its call, and what the kernel refused by a limit is done.
grep "ended by signal 31" "$work/control" && complain "an attempt is killed without a filter"
done_count=$(grep -cE " (DONE|ran)$" "$work/control")
echo "unconfined: $done_count are done, the others are refused otherwise"
[ "$done_count" -ge 70 ] || complain "only $done_count attempts work unconfined: $(cat "$work/control")"
while read -r name expectation; do
  outcome=$(sed -n "s/^$name //p" "$work/control")
  [ -n "$outcome" ] || complain "$name was not tried unconfined"
  [[ $expectation == *"$outcome"* ]] && complain "$name goes the same unconfined: $outcome"
done < "$work/list"

# A real run is as confined as the kernel can say, and the host knows nothing of its supervisor's user.
check_status() {
  local said=$1
  grep -q "martlet-host .*: confined$" <<< "$said" || complain "not confined: $said"
  grep -q "WEAKER" <<< "$said" && complain "weaker than wished: $said"
  grep -q "CapAmb 0*, CapBnd 0*, \|CapEff 0*, CapPrm 0*, CapInh 0*, CapBnd 0*, CapAmb 0*$" <<< "$said" || complain "capabilities: $said"
  grep -q "namespaces of its own: user pid mnt net ipc uts cgroup" <<< "$said" || complain "namespaces: $said"
}
until_ready() { for _ in $(seq 200); do grep -q "try it\|driver host: started" "$1" && return; sleep 0.05; done; complain "no start: $(cat "$1")"; }
$martlet run --seconds 30 --fetch 0 < /dev/null > "$work/run.log" 2>&1 &
runner=$!
until_ready "$work/run.log"
said=$($martlet status --of $runner)
[ $? = 0 ] || complain "status says that the host is not confined"
check_status "$said"
grep -q "Landlock, as the host says: version [1-9]" <<< "$said" || grep -q "of which the kernel has none" <<< "$said" || complain "Landlock: $said"
grep -q "martlet $runner, .*: a supervisor" <<< "$said" || complain "the supervisor is not shown: $said"
# The supervisor has given up what it does not need, too.
grep -q "^NoNewPrivs:.1" /proc/$runner/status && grep -q "^Seccomp:.2" /proc/$runner/status || complain "the supervisor has given up nothing"
for set in CapEff CapPrm CapBnd; do
  bits=$(awk "/^$set:/ {print \$2}" /proc/$runner/status)
  # CAP_SYS_PTRACE 19, CAP_SYS_MODULE 16, CAP_SYS_RAWIO 17, CAP_SYS_BOOT 22, CAP_BPF 39
  [ $((0x$bits & (1 << 19 | 1 << 16 | 1 << 17 | 1 << 22 | 1 << 39))) = 0 ] || complain "the supervisor keeps $set $bits"
done
kill -INT $runner
wait $runner
# And an unconfined one is seen to be that.
$martlet run --unsafe-unconfined --seconds 30 --fetch 0 < /dev/null > "$work/run.log" 2>&1 &
runner=$!
until_ready "$work/run.log"
said=$($martlet status --of $runner)
[ $? = 3 ] && grep -q "WEAKER THAN WISHED: it may make any system call" <<< "$said" || complain "an unconfined host passes: $said"
kill -INT $runner
wait $runner

# An ordinary user has the same, where user namespaces are allowed.
if [ "$(id -u)" = 0 ]; then
  mkdir "$work/bin" && chmod 755 "$work" "$work/bin"
  cp "$martlet" "$escape" "$stack" "$(dirname "$martlet")/martlet-host" "$work/bin"
  as_user() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }
  if as_user unshare -U true 2> /dev/null; then
    for name in openat socket-unix fork mmap-exec kill-all mount ptrace prctl-dumpable mmap-much i386; do
      attempt "$name" "$(sed -n "s/^$name //p" "$work/list")" as_user "$work/bin/martlet" run --host "$work/bin/martlet-escape" --pages 4K
    done
    # Not by the function, whose shell would be the process that is waited for.
    setpriv --reuid=nobody --regid=nogroup --clear-groups "$work/bin/martlet" run --pages 4K --seconds 30 --fetch 0 \
      < /dev/null > "$work/run.log" 2>&1 &
    runner=$!
    until_ready "$work/run.log"
    said=$(as_user "$work/bin/martlet" status --of $runner)
    [ $? = 0 ] || complain "status says that an ordinary user's host is not confined"
    check_status "$said"
    kill -INT $runner
    wait $runner
    echo "an ordinary user's host is confined as well"
  else
    echo "user namespaces are not for ordinary users here: not tried"
  fi
fi
[ $failures = 0 ]
