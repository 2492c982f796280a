import DriverConformance
import E1000e
import E1000eDevice
import Testing
import Wire

@Suite struct E1000eConformanceTests {
  static func makeBench() -> ModelBench {
    let wire = MemoryWire()
    return ModelBench(E1000eDevice(wire: wire), wire: wire)
  }

  @Test(arguments: ConformanceSuite<E1000e>.checks.map(\.name))
  func conforms(check: String) {
    let results = ConformanceSuite<E1000e>.run(filter: check) { Self.makeBench() }
    #expect(results.failures == [])
    #expect(results.passed.count + results.notPossible.count == 1)
  }
}
