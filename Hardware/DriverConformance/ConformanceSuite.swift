import Driver

/// Everything that any network driver must do, tried on a bench: each check starts the driver anew and ends with nothing
/// lost and nothing complained about. What a check needs and the bench has not is said, not passed over.
///
/// ```swift
/// let results = ConformanceSuite<MyDriver>.run { MyBench() }
/// #expect(results.failures == [])
/// ```
public enum ConformanceSuite<D: NetworkDriver & ~Copyable> {
  public typealias Check = (name: String, body: (any NetworkBench) throws -> Void)

  /// All checks, in the order in which they are made.
  public static var checks: [Check] {
    identityChecks + receiveChecks + transmitChecks + controlChecks + interruptChecks + lifeChecks
      + faultChecks
  }

  /// Makes all checks, or those whose names contain `filter`.
  /// - Parameter makeBench: a bench for each check: fresh, or the same one made quiet.
  public static func run(
    filter: String = "", _ makeBench: () throws -> any NetworkBench
  ) -> ConformanceResults {
    var results = ConformanceResults()
    for (name, body) in checks where filter.isEmpty || name.contains(filter) {
      do {
        let bench = try makeBench()
        if bench.model == nil { try quieten(bench) }
        _ = bench.takeComplaints()
        try body(bench)
        if let complaint = bench.takeComplaints().first {
          throw Nonconformance("the device complains: \(complaint)")
        }
        results.passed.append(name)
      } catch let reason as NotPossible {
        results.notPossible.append("\(name): \(reason.reason)")
      } catch {
        results.failures.append("\(name): \(error)")
      }
    }
    return results
  }

  /// Whatever an earlier check has left on a real wire is taken off it.
  private static func quieten(_ bench: any NetworkBench) throws {
    var rig = try Rig<D>(bench)
    _ = try rig.wait { rig in
      try rig.queue.post(64)
      _ = try rig.queue.receive()
      return false
    }
    try rig.stop()
    _ = bench.takeSent()
  }
}

/// What a driver has been found to do.
public struct ConformanceResults: Sendable {
  public var passed: [String] = []
  /// Checks that this bench or this driver does not allow, with the reason.
  public var notPossible: [String] = []
  public var failures: [String] = []
}
