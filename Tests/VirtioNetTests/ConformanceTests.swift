import DriverConformance
import Testing
import Virtio
import VirtioNet
import VirtioNetDevice
import Wire

@Suite struct VirtioNetConformanceTests {
  static func makeBench(_ additional: VirtioFeatures) -> ModelBench {
    let wire = MemoryWire()
    var options = VirtioNetDevice.Options()
    options.mtu = 9000
    options.queuePairs = 2
    options.additional = additional
    return ModelBench(VirtioNetDevice(wire: wire, options: options), wire: wire)
  }

  @Test(
    arguments: ConformanceSuite<VirtioNet>.checks.map(\.name),
    [[], .inOrder, .packedRing, [.packedRing, .inOrder]] as [VirtioFeatures])
  func conforms(check: String, additional: VirtioFeatures) {
    let results = ConformanceSuite<VirtioNet>.run(filter: check) { Self.makeBench(additional) }
    #expect(results.failures == [])
    #expect(results.passed.count + results.notPossible.count == 1)
  }
}
