import DriverConformance
import Testing
import VirtioNet
import VirtioNetDevice
import Wire

@Suite struct VirtioNetConformanceTests {
  static func makeBench() -> ModelBench {
    let wire = MemoryWire()
    var options = VirtioNetDevice.Options()
    options.mtu = 9000
    options.queuePairs = 2
    return ModelBench(VirtioNetDevice(wire: wire, options: options), wire: wire)
  }

  @Test(arguments: ConformanceSuite<VirtioNet>.checks.map(\.name))
  func conforms(check: String) {
    let results = ConformanceSuite<VirtioNet>.run(filter: check) { Self.makeBench() }
    #expect(results.failures == [])
    #expect(results.passed.count + results.notPossible.count == 1)
  }
}
