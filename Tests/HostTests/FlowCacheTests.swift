import Steering
import Testing

@testable import Host

/// What is remembered of flows, whatever the factor that spreads them.
@Suite struct FlowCacheTests {
  private func frame(_ flow: Int) -> [UInt8] {
    var frame = SharedFrames.udp(
      from: [10, 0, 1, UInt8(flow & 255)], to: SharedFrames.address(0), number: flow)
    frame[34] = UInt8(flow >> 8)
    return frame
  }

  /// - Returns: how many of the flows were known.
  private func known(_ flows: some Sequence<Int>, _ cache: inout FlowCache) -> Int {
    var known = 0
    for flow in flows {
      frame(flow).withUnsafeBytes {
        guard let key = cache.key($0.baseAddress!, $0.count) else { return }
        if let verdict = cache.find(key) {
          known += 1
          #expect(verdict.rule == Int32(flow))
        } else {
          cache.remember(key, FlowVerdict(rule: Int32(flow)))
        }
      }
    }
    return known
  }

  @Test func fewFlowsStay() {
    for _ in 0..<50 {
      var cache = FlowCache()
      #expect(known(0..<64, &cache) == 0)
      #expect(known(0..<64, &cache) >= 56)
      #expect(known(0..<64, &cache) >= 56)
      cache.forget(isSufficient: true)
      #expect(known(0..<64, &cache) == 0)
      cache.forget(isSufficient: false)
      #expect(known(0..<64, &cache) == 0 && known(0..<64, &cache) == 0)
    }
  }

  @Test func aFourthAsManyAsThereArePlacesAreNearlyAllFound() {
    var cache = FlowCache()
    var found = 0
    for round in 0..<30 {
      let known = known((0..<1024).shuffled(), &cache)
      if round >= 20 { found += known }
    }
    #expect(found > 10 * 1024 * 9 / 10)
  }

  /// While each packet is of another flow it is not looked for; afterwards it is again.
  @Test func aScanIsLetPass() {
    var cache = FlowCache()
    #expect(known(1000..<1300, &cache) == 0)
    #expect(known((0..<64).flatMap { [$0, $0] }, &cache) == 0)
    _ = known(2000..<3024, &cache)
    _ = known(0..<64, &cache)
    #expect(known(0..<64, &cache) >= 56)
  }
}
