# Short runs on real functions are recorded by a confined driver host, and replayed without them. The traces are left in
# .build/lab/results: Tests/Fixtures/e1000e-qemu.trace is one of these.
. "$(dirname "$0")/../../Hardware/Lab/checks.sh"
make_peer
for function in 0000:00:05.0 0000:00:03.0; do
  former=$(driver $function)
  check "$former: bind" $martlet bind $function
  for mode in interrupt adaptive; do
    trace=/results/$former-$mode.trace
    # What a real device writes in one certain microsecond is recorded too late. That is rare.
    for attempt in 1 2 3; do
      check "$former, $mode: starts" start $martlet run --device $function --address 10.0.0.2/24 --mode $mode \
        --memory 16 --ring-size 64 --record $trace
      $martlet status > /tmp/status.log
      check "$former, $mode: the driver host is confined" grep -q ': confined' /tmp/status.log
      # Each with an interrupt of its own: a recorded run takes its time.
      check "$former, $mode: ping 5 of 5" peer_ping 5 0.4
      check "$former, $mode: ends with 0" stop
      tail -5 /tmp/run.log
      check "$former, $mode: the trace is whole" grep -q "^trace: $(wc -l < $trace) lines in $trace\$" /tmp/run.log
      $martlet replay $trace && break
    done
    check "$former, $mode: it is replayed" $martlet replay $trace
    echo "attempts: $attempt"
  done
  check "$former: unbind" $martlet unbind $function
done
check "no IOMMU faults" test "$(iommu_faults)" = 0
exit 0
