# The kernel's own stack on the NIC, as an instance: every program of the guest can use it.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
$martlet bind $nic
check "starts" start $martlet run --device $nic --stack kernel --address 10.0.0.2/24
ip addr show martlet0
check "ping 100 of 100" peer_ping 100
check "the other way" ping -n -q -c 20 -i 0.02 -W 5 -I martlet0 10.0.0.1
head -c 3000000 /dev/urandom > /tmp/sent
busybox httpd -f -p 10.0.0.2:8000 -h /tmp > /dev/null 2>&1 &
server=$!
sleep 2
ip netns exec peer curl -sS --max-time 60 http://10.0.0.2:8000/sent -o /tmp/received
check "3 MB from a program of the guest" cmp /tmp/sent /tmp/received
kill $server
check "ends with 0" stop
tail -30 /tmp/run.log
check "the interface is gone" bash -c "! ip link show martlet0 2> /dev/null"
check "no IOMMU faults" test "$(iommu_faults)" = 0
exit 0
