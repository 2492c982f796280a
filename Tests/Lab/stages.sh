# Stages on a real function behind a real IOMMU: what they change and make in place is what the device sends and has received.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
socket=/tmp/stages.socket
cat > /tmp/policy.toml << 'P'
[default]
claims = ["any"]

[[stage]]
name = "wall"
kind = "firewall"
configuration = "rule closed way=receive protocol=tcp destination-port=81 drop"
fails = "open"

[[stage]]
name = "slow"
kind = "shaper"
configuration = "rate=1Gbit/s burst=64KB queue=500 way=both"
fails = "closed"
P
check "bind" $martlet bind $nic
check "starts" start $martlet run --share $socket --policy /tmp/policy.toml --device $nic --stack lwip --address 10.0.0.2/24
ping_all() { ip netns exec peer ping -n -q -c 100 -i 0.02 -W 5 10.0.0.2 | grep "100 received"; }
fetch() {
  [ "$(ip netns exec peer curl -sS --max-time 100 "http://10.0.0.2/bytes/$1" | sha256sum)" = "$($martlet pattern "$1" | sha256sum)" ]
}
process() { $martlet stats --socket $socket | sed -n "s/^ *stage_$1_process  *//p"; }
runs() { $martlet stage list --socket $socket | grep -q " $1 .*: running"; }
answers() { for _ in $(seq 60); do ip netns exec peer ping -n -q -c 1 -W 1 10.0.0.2 > /dev/null && return; done; }
answers
check "ping 100 of 100 through two stages" ping_all
check "5 MB through two stages" fetch 5000000
ip netns exec peer curl -sS --max-time 2 http://10.0.0.2:81/ > /dev/null 2>&1
$martlet stats --socket $socket > /tmp/stats.log
check "the wall has dropped some" test "$(sed -n 's/^ *stage_wall_dropped  *//p' /tmp/stats.log)" -ge 1
fetch 5000000 &
fetching=$!
for name in wall slow wall slow; do
  for _ in $(seq 300); do runs $name && break; sleep 0.1; done
  kill -9 "$(process $name)"
done
check "5 MB while stages are killed" wait $fetching
for name in wall slow; do
  for _ in $(seq 300); do runs $name && break; sleep 0.1; done
  check "$name has come back" runs $name
done
check "another driver host" $martlet restart --socket $socket
for name in wall slow; do for _ in $(seq 300); do runs $name && break; sleep 0.1; done; done
answers
check "ping 100 of 100 with another driver host" ping_all
check "ends with 0" stop
tail -40 /tmp/run.log
check "all receive segments are the host's again" test "$(counter rx_q0_segments_host)" = 16384
check "no IOMMU faults" test "$(iommu_faults)" = 0
check "unbind" $martlet unbind $nic
exit 0
