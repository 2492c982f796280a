# Latency over a real function: pings that lwIP answers through a confined driver host, through one that is not confined, and
# those that the kernel's own virtio-net path answers, in turn; on a quiet guest and beside a program that never rests.
# Cores: 2
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
rounds=1
pings=300
samples=/tmp/realtime
mkdir -p $samples
# sample NAME: the times of pings that 10.0.0.2 answers, in ms.
sample() {
  ip netns exec peer ping -n -c $pings -i 0.004 -W 5 10.0.0.2 > /tmp/ping.log
  sed -n 's/.*time=\([0-9.]*\) ms/\1/p' /tmp/ping.log >> "$samples/$1"
  grep -q "$pings received" /tmp/ping.log
}
both() {
  check "$1, round $round: all answered" sample "$1.quiet"
  # On the other core, where there is one.
  taskset -c 0 sh -c 'while :; do :; done' &
  hog=$!
  check "$1 beside a hog, round $round: all answered" sample "$1.hog"
  kill $hog
  wait $hog 2> /dev/null
}
# The kernel's end of this function, where its own driver has it.
take_by_kernel() {
  ip netns add near
  ip link set "$(interface $nic)" netns near name near0
  ip -n near addr add 10.0.0.2/24 dev near0
  ip -n near link set near0 up
}
last=$(($(nproc) - 1))
for round in $(seq $rounds); do
  take_by_kernel
  ip netns exec peer ping -n -q -c 3 -W 5 10.0.0.2 > /dev/null
  both kernel
  # The interface comes back to us, and loses its name and address.
  ip netns del near
  sleep 0.5
  check "bind, round $round" $martlet bind --force $nic
  for kind in confined unconfined; do
    option=
    [ $kind = unconfined ] && option=--unsafe-unconfined
    check "$kind starts, round $round" start $martlet run --device $nic --stack lwip --address 10.0.0.2/24 --cores $last $option
    ip netns exec peer ping -n -q -c 3 -W 5 10.0.0.2 > /dev/null
    both $kind
    stop
  done
  check "unbind, round $round" $martlet unbind $nic
done
echo "pings over a real function, $(nproc) cores in the guest, microseconds:"
printf '%-18s %8s %8s %8s %8s %8s\n' path pings p50 p99 p99.9 max
for name in kernel.quiet confined.quiet unconfined.quiet kernel.hog confined.hog unconfined.hog; do
  sort -n $samples/$name | awk -v name=$name '
    { value[NR] = $1 * 1000 }
    function at(share,   i) { i = int(share * NR) + 1; return value[i > NR ? NR : i] }
    END { printf "%-18s %8d %8.0f %8.0f %8.0f %8.0f\n", name, NR, at(0.5), at(0.99), at(0.999), value[NR] }'
done
check "no IOMMU faults" test "$(iommu_faults)" = 0
exit 0
