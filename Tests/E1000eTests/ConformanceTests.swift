import Driver
import DriverConformance
import E1000e
import E1000eDevice
import Memory
import Testing
import Wire

@Suite struct E1000eConformanceTests {
  static func makeBench(hasExtendedDescriptors: Bool = true) -> ModelBench {
    let wire = MemoryWire()
    var options = E1000eDevice.Options()
    options.hasExtendedDescriptors = hasExtendedDescriptors
    return ModelBench(E1000eDevice(wire: wire, options: options), wire: wire)
  }

  /// The older format of receive descriptors, which has no place for a hash: one queue.
  @Test func conformsWithLegacyDescriptors() throws {
    let bench = Self.makeBench(hasExtendedDescriptors: false)
    let driver = try E1000e(
      DriverResources(
        function: bench.function, rings: DMAZone(bench.rings), arena: bench.arena, queuePairs: 2))
    #expect(driver.interface.features == ["legacy-descriptors"])
    #expect(driver.interface.queuePairs == 1)
    let results = ConformanceSuite<E1000e>.run { Self.makeBench(hasExtendedDescriptors: false) }
    #expect(results.failures == [])
    #expect(results.passed.count >= 25)
  }

  @Test(arguments: ConformanceSuite<E1000e>.checks.map(\.name))
  func conforms(check: String) {
    let results = ConformanceSuite<E1000e>.run(filter: check) { Self.makeBench() }
    #expect(results.failures == [])
    #expect(results.passed.count + results.notPossible.count == 1)
  }
}
