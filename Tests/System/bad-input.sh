# Bad input gets one clear line, a non-zero exit, and leaves nothing.
set -u
martlet=.build/release/martlet
code=0
expect() {
  local wanted=$1 text=$2
  shift 2
  local out status
  out=$(timeout 20 "$@" 2>&1 < /dev/null)
  status=$?
  if [ $status = 0 ] || [ $status -ge 124 ] || { [ "$wanted" != any ] && [ $status != "$wanted" ]; }; then
    echo "$*: exit $status"; code=1
  fi
  grep -qi -- "$text" <<< "$out" || { echo "$*: no '$text' in: $out"; code=1; }
}
one_line() {
  local lines
  lines=$(timeout 20 "$@" 2>&1 > /dev/null < /dev/null | wc -l)
  [ "$lines" = 1 ] || { echo "$*: $lines lines"; code=1; }
}
expect 2 "0000:ff:1f.7" $martlet run --device 0000:ff:1f.7
one_line $martlet run --device 0000:ff:1f.7
expect any "no-such" $martlet run --device no-such
expect 64 "address" $martlet run --address 10.0.0.0/24
expect 64 "address" $martlet run --address ten
expect 64 "gateway\|IPv4" $martlet run --gateway here
expect 64 "ring-size" $martlet run --ring-size 100
expect 64 "queues" $martlet run --queues 0
expect 64 "memory" $martlet run --memory 7
expect 64 "mode" $martlet run --mode fast
expect 64 "core" $martlet run --cores 9999
expect 64 "core" $martlet run --cores 0,1
expect 64 "core" $martlet run --queues 2 --cores 0,
expect 64 "pages" $martlet run --pages 3M
expect 64 "socket" $martlet run --device vfio-user:
expect 1 "connect\|No such file" $martlet run --device vfio-user:/nonexistent/socket
one_line $martlet run --device vfio-user:/nonexistent/socket
expect 64 "wire" $martlet serve virtio-net --socket /tmp/martlet-test-$$.sock
expect 64 "MAC" $martlet serve virtio-net --socket /tmp/martlet-test-$$.sock --wire none --mac nonsense
expect 64 "bytes" $martlet serve virtio-net --socket "/tmp/$(printf 'x%.0s' $(seq 200))" --wire none
expect 1 "no socket" $martlet attach --socket /nonexistent/socket --stack lwip --address 10.0.0.3/24
one_line $martlet attach --socket /nonexistent/socket --stack lwip --address 10.0.0.3/24
expect 64 "address" $martlet attach --socket s --stack lwip
expect 64 "claim" $martlet attach --socket s --stack sink
expect 64 "no claim" $martlet attach --socket s --stack sink --claim tcp/80
expect 64 "no program" $martlet attach --socket s --stack ./no-such --address 10.0.0.3/24
expect 64 "name" $martlet attach --socket s --stack sink --claim rest --name "a b"
expect 1 "no-token" $martlet attach --socket s --stack sink --claim rest --token-file /no-token
expect any "" .build/release/martlet-host --nonsense
expect any "" .build/release/martlet-stack

# A server that answers nonsense.
socket=/tmp/martlet-nonsense-$$.sock
python3 - $socket <<'P' &
import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1)
c, _ = s.accept(); c.recv(4096); c.send(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4); c.settimeout(10)
try: c.recv(1)
except Exception: pass
P
server=$!
for _ in $(seq 50); do [ -S $socket ] && break; sleep 0.1; done
expect 1 "vfio-user" $martlet run --device vfio-user:$socket
kill $server 2> /dev/null
rm -f $socket
exit $code
