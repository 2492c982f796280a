// Tries one copy of a driver: mutants NAME [all]. Ends with 1 when a check failed: the first one, or after `all`. Each
// check is named before it is made, so that a crash can be put down to it.
import Driver
import DriverConformance
import E1000eDevice
import EmulatedPCI
import Glibc
import Virtio
import VirtioNetDevice
import WeakMemory
import Wire

/// Writes a line at once: what a crash leaves in a buffer is lost.
func say(_ line: String) {
  let bytes = Array((line + "\n").utf8)
  _ = write(STDOUT_FILENO, bytes, bytes.count)
}

func tryE1000e<D: NetworkDriver & ~Copyable>(_ driver: D.Type) {
  run(driver) {
    let wire = MemoryWire()
    return ModelBench(E1000eDevice(wire: wire), wire: wire)
  }
}

func tryVirtioNet<D: NetworkDriver & ~Copyable>(_ driver: D.Type) {
  // One after the other in all formats.
  let formats: [VirtioFeatures] = [[], .packedRing, .inOrder, [.packedRing, .inOrder]]
  var bench = 0
  run(driver, benches: formats.count) {
    let wire = MemoryWire()
    var options = VirtioNetDevice.Options()
    options.mtu = 9000
    options.queuePairs = 2
    options.additional = formats[bench % formats.count]
    bench += 1
    return ModelBench(VirtioNetDevice(wire: wire, options: options), wire: wire)
  }
}

/// - Parameter benches: kinds of bench that `makeBench` makes, in turn.
func run<D: NetworkDriver & ~Copyable>(
  _ driver: D.Type, benches: Int = 1, _ makeBench: () -> ModelBench
) {
  var hasFailed = false
  let checks = ConformanceSuite<D>.checks.map(\.name)
  // What takes seconds comes last: most mutants do not get there.
  let isLong = { (check: String) in check.contains("many times") || check.contains("thousand") }
  let ordered = checks.filter { !isLong($0) } + checks.filter(isLong)
  for check in ordered.flatMap({ Array(repeating: $0, count: benches) }) {
    say("check\t\(check)")
    let results = ConformanceSuite<D>.run(filter: check) {
      let bench = makeBench()
      WeakMemory.fence()
      WeakMemory.stepDevice = {
        // A device looks when it likes, also where nobody has notified it.
        (bench.networkModel as? any PollingModel)?.wake()
        _ = bench.step()
      }
      return bench
    }
    for failure in results.failures {
      hasFailed = true
      let reason = failure.dropFirst(check.count + 2).replacing("\n", with: " ")
      say("failed\t\(check)\t\(reason)")
    }
    if hasFailed && CommandLine.arguments.last != "all" { break }
  }
  exit(hasFailed ? 1 : 0)
}

guard CommandLine.arguments.count >= 2 else {
  say("usage: mutants NAME [all]")
  exit(2)
}
tryMutant(CommandLine.arguments[1])
say("no mutant is named \(CommandLine.arguments[1])")
exit(2)
