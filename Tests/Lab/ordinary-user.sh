# The function is handed to a user without rights, who runs everything on it.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
# Where the user can reach them, wherever this checkout lies.
mkdir /tmp/bin
cp "$martlet" "$martlet-host" "$martlet-stack" /tmp/bin
martlet=/tmp/bin/martlet
check "bind for a user" $martlet bind $nic --user nobody
ulimit -l 8192
as_user() { setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; }
says "too little memory may be locked" 1 "locked" as_user $martlet run --device $nic --pages 4K --seconds 1
says "doctor says so too" 1 "prlimit" as_user $martlet doctor $nic
ulimit -l unlimited
says "doctor is content" 0 " 0 failed" as_user $martlet doctor $nic
as_user $martlet run --device $nic --stack lwip --address 10.0.0.2/24 > /tmp/run.log 2>&1 &
runner=$!
for _ in $(seq 300); do grep -q 'running until' /tmp/run.log && break; sleep 0.1; done
check "no process of it is root's" test -z "$(pgrep -u root martlet)"
check "ping 100 of 100" sh -c "ip netns exec peer ping -n -q -c 100 -i 0.02 -W 5 10.0.0.2 | grep '100 received'"
got=$(ip netns exec peer curl -sS --max-time 100 http://10.0.0.2/bytes/2000000 | sha256sum)
check "2000000 bytes with the right checksum" test "$got" = "$($martlet pattern 2000000 | sha256sum)"
kill -INT "$(pgrep -u nobody -o martlet)"
wait $runner
check "ends with 0" test $? = 0
tail -20 /tmp/run.log
check "no IOMMU faults" test "$(dmesg | grep -c 'DMAR.*fault')" = 0
check "unbind" $martlet unbind $nic
exit 0
