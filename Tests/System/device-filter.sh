# What nobody wants does not come: the device is told which stations claims and rules name, by both drivers, also after the
# driver host was killed. IPv6 needs it: neighbours are found by groups.
set -u
. Tests/System/opening.bash
[ -e Sources/CLwIP/lwip/.version ] || { echo "without lwIP: left out"; exit 0; }
list() { $martlet rules list --socket "$socket"; }
count() { list | sed -n "s/^rule $1 .*host, \([0-9]*\) packets.*/\1/p"; }
says() { list | grep -q "$1"; }
# A packet for a station that is not the interface's: nobody answers.
strange() { $inside ping -n -q -c 1 -W 0.2 10.0.0.9 > /dev/null; true; }
hears6() { $inside ip -6 neigh flush dev "$interface" && $inside ping -6 -n -q -c 1 -W 1 fd00::3; }

printf '[default]\nclaims = ["any"]\n' > "$work/policy.toml"
for device in virtio-net e1000e; do
  : > "$work/run.log"
  $martlet run --share "$socket" --policy "$work/policy.toml" --device emulated:$device --stack none --seconds 100 < /dev/null > "$work/run.log" 2>&1 &
  running=$!
  pids+=($running)
  until_true grep -q "until Ctrl-C" "$work/run.log" || fail "the run does not start"
  inside=$(sed -n "s/.*kernel's TCP.IP.*: \(nsenter.*\)/\1/p" "$work/run.log")
  interface=$($inside ip -o -4 address show to 10.0.0.0/24 | awk '{ print $2 }')
  $inside ip address add fd00::1/64 dev "$interface" nodad
  $inside ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:99 dev "$interface"
  $martlet attach --socket "$socket" --name a --stack lwip --address 10.0.0.3/24 --claim ipv4:10.0.0.3 --claim ipv6:fd00::3 \
    --claim group:224.1.2.3 > "$work/a.log" 2>&1 &
  attached=$!
  pids+=($attached)
  until_true $inside ping -n -q -c 1 -W 1 10.0.0.3 || fail "no ping ($device)"
  until_true hears6 || fail "no ping over IPv6 ($device): $(list)"
  says "its own address, broadcasts and the groups 01:00:5e:00:00:01, 01:00:5e:01:02:03, 33:33:00:00:00:01, 33:33:ff:00:00:03$" ||
    fail "not what claims name ($device): $(list)"

  # A rule for another station: packets for it come as long as the rule is there.
  $martlet rules add --socket "$socket" 'rule other destination-mac=02:00:00:00:00:99 to=a' || fail "no rule"
  until_true says "its own address and 02:00:00:00:00:99, " || fail "the device is not told ($device): $(list)"
  says "^rule other .*by the device and the host" || fail "nobody says who applies it ($device): $(list)"
  strange
  [ "$(count other)" = 1 ] || fail "what the rule is for does not come ($device): $(list)"
  $martlet rules modify --socket "$socket" 'rule other destination-mac=02:00:00:00:00:99 drop' || fail "no change"
  until_true says "its own address, " || fail "the device is not told that nobody wants it ($device): $(list)"
  strange
  [ "$(count other)" = 1 ] || fail "what nobody wants comes ($device): $(list)"
  $martlet rules modify --socket "$socket" 'rule other destination-mac=02:00:00:00:00:00/24 clone=a' || fail "no change"
  until_true says "lets through all packets" || fail "the device is not told to let all through ($device): $(list)"
  strange
  [ "$(count other)" -ge 2 ] || fail "not all comes ($device): $(list)"
  $martlet rules remove --socket "$socket" other || fail "no removal"

  # Another driver host: its device is told again.
  kill -9 "$(pgrep -P $running -f martlet-host | head -1)"
  until_true hears6 || fail "no ping over IPv6 with another driver host ($device): $(list)"
  until_true says "33:33:ff:00:00:03" || fail "the other device is not told ($device): $(list)"
  echo "$device: stations and groups as claims and rules name them"
  kill -INT $running
  wait $running || fail "the run ends badly ($device)"
done
