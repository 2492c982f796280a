# One function, three instances at once: the kernel's stack, lwIP, and a program in C.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
sources=$(dirname "$0")/../..
socket=/tmp/share.socket
gcc -std=c11 -O2 -Wall -Wextra -Werror -I "$sources/Sources/CMartletChannel/include" "$sources/Examples/icmp-echo.c" -o /tmp/icmp-echo
check "bind" $martlet bind $nic
check "starts" start $martlet run --share $socket --device $nic --stack kernel --address 10.0.0.2/24
$martlet attach --socket $socket --stack lwip --address 10.0.0.3/24 > /tmp/lwip.log 2>&1 &
lwip=$!
/tmp/icmp-echo 10.0.0.4 $socket > /tmp/echo.log 2>&1 &
echo=$!
running() { $martlet memory --socket $socket | grep -c '^instance.*running'; }
for _ in $(seq 300); do [ "$(running)" = 3 ] && break; sleep 0.1; done
check "three instances run" test "$(running)" = 3
# ping ADDRESS: 100 of 100, one each 20 ms.
ping_all() { ip netns exec peer ping -n -q -c 100 -i 0.02 -W 5 "$1" | grep "100 received"; }
fetch() {
  [ "$(ip netns exec peer curl -sS --max-time 100 "http://$1/bytes/$2" | sha256sum)" = "$($martlet pattern "$2" | sha256sum)" ]
}
busybox httpd -f -p 10.0.0.2:8000 -h /tmp > /dev/null 2>&1 &
server=$!
head -c 3000000 /dev/urandom > /tmp/sent
for address in 10.0.0.2 10.0.0.3 10.0.0.4; do check "$address: ping 100 of 100" ping_all $address; done
# All at once.
fetch 10.0.0.3 5000000 &
fetching=$!
ip netns exec peer curl -sS --max-time 100 http://10.0.0.2:8000/sent -o /tmp/received &
receiving=$!
check "10.0.0.4: ping 100 of 100 beside the others" ping_all 10.0.0.4
check "5 MB from lwIP" wait $fetching
wait $receiving
check "3 MB from a program on the kernel's stack" cmp /tmp/sent /tmp/received
check "the other way" ping -n -q -c 20 -i 0.02 -W 5 -I martlet0 10.0.0.1
# One is killed: its memory is taken from the device, the others go on.
kill -9 $echo
wait $echo 2> /dev/null
for _ in $(seq 200); do [ "$(running)" = 2 ] && break; sleep 0.1; done
check "one is killed and let go of" test "$(running)" = 2
check "10.0.0.3: ping 100 of 100 after it" ping_all 10.0.0.3
$martlet stats --socket $socket > /tmp/stats.log
check "one copy for each packet" test "$(sed -n 's/^  rx_copied_packets //p' /tmp/stats.log)" -gt 300
kill $server
check "ends with 0" stop
wait $lwip
tail -40 /tmp/run.log
check "all receive segments are the host's again" test "$(counter rx_q0_segments_host)" = 16384
check "no IOMMU faults" test "$(iommu_faults)" = 0
check "unbind" $martlet unbind $nic
exit 0
