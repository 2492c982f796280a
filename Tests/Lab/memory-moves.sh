# Memory that moves under real VFIO: an instance grows from 64 MiB to 256 MiB and back while packets come and go.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
$martlet bind $nic
cat > /tmp/policy.toml << P
[memory]
budget = 320
[default]
claims = ["any"]
memory = 64
maximum-memory = 256
P
check "starts" start $martlet run --device $nic --share /tmp/socket --policy /tmp/policy.toml --stack none --memory 16
$martlet attach --socket /tmp/socket --stack lwip --address 10.0.0.2/24 > /tmp/stack.log 2>&1 &
stack=$!
for _ in $(seq 300); do
  id=$($martlet memory --socket /tmp/socket | sed -n 's/^instance \([0-9]*\) .* running.*/\1/p')
  [ -z "$id" ] || break
  sleep 0.1
done
check "ping" peer_ping 20
has() { $martlet memory --socket /tmp/socket | grep -q "^instance $id .*: $1 MiB now"; }
$martlet pattern 1000000 > /tmp/wanted
(
  for _ in $(seq 300); do
    [ ! -e /tmp/enough ] || exit 0
    ip netns exec peer curl -sS --max-time 60 http://10.0.0.2/bytes/1000000 -o /tmp/received
    cmp -s /tmp/received /tmp/wanted || exit 1
  done
) &
fetches=$!
(until [ -e /tmp/enough ]; do ip netns exec peer ping -n -q -c 20 -i 0.05 -W 10 10.0.0.2; done) > /tmp/pings.log 2>&1 &
pings=$!
for round in 1 2 3; do
  check "grows to 256 MiB, $round" $martlet grow --socket /tmp/socket "$id" 192
  check "has 256 MiB, $round" has 256
  check "shrinks to 64 MiB, $round" $martlet shrink --socket /tmp/socket "$id" 192
  check "has 64 MiB, $round" has 64
done
touch /tmp/enough
check "what was fetched meanwhile is right" wait $fetches
wait $pings
# lwIP drops echo replies of its own where a download has filled its ring just then.
check "pings are answered throughout" awk '/packets transmitted/ { s += $1; r += $4 } END { exit !(s >= 20 && r * 20 >= s * 19) }' /tmp/pings.log
kill -TERM $stack
wait $stack
check "ends with 0" stop
tail -20 /tmp/run.log
check "no IOMMU faults" test "$(iommu_faults)" = 0
exit 0
