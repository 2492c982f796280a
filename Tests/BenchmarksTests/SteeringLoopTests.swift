import Testing

@testable import Benchmarks

@Suite struct SteeringLoopTests {
  /// Three in four packets hit a rule, whatever the rules are like.
  @Test(arguments: [SteeringLoop.Rules.mixed, .networks])
  func mostPacketsHitARule(_ rules: SteeringLoop.Rules) throws {
    for count in [1, 8, 200] {
      var loop = try SteeringLoop(rules, count: count)
      #expect(try loop.run(bursts: 32) == 1024)
      #expect((768...1024).contains(loop.hits), "\(loop.hits) of 1024, with \(count) rules")
    }
  }
}
