import CLinux
import Channel
import Memory
import Steering
import Testing

@testable import Host

/// Rules before claims, from the supervisor's message to who gets the packet.
@Suite struct SharedRuleTests {
  private func incoming(_ index: Int, _ number: Int, from host: UInt8 = 254) -> [UInt8] {
    SharedFrames.udp(from: [10, 0, 0, host], to: SharedFrames.address(index), number: number)
  }

  /// - Returns: the counters that the host writes.
  @discardableResult
  private func set(_ text: String, _ bench: SharedBench, generation: Int = 1) throws -> Message {
    let message = try Message(text)
    bench.tell(
      "rules generation=\(generation) bytes=\(message.bytes) counters=4096", message.descriptors)
    #expect(try bench.waits(for: "ruled generation=\(generation)"))
    return message
  }

  private final class Message {
    let text: Arena
    let bytes: Int
    let counters: Arena
    var descriptors: [Int32] { [text.descriptor, counters.descriptor] }

    init(_ text: String) throws {
      let bytes = Array(text.utf8)
      self.bytes = bytes.count
      self.text = try Arena(
        byteCount: (bytes.count / 4096 + 1) * 4096, pageSize: .ordinary, name: "rules")
      self.text.address.copyMemory(from: bytes, byteCount: bytes.count)
      counters = try Arena(byteCount: 4096, pageSize: .ordinary, name: "counters")
    }
  }

  private func value(
    _ counter: RuleCounterLayout.Counter, _ rule: Int, of rules: Int, _ message: Message
  ) -> UInt64 {
    relaxed_load64(
      message.counters.address
        + RuleCounterLayout.offset(of: counter, rule: rule, queue: 0, rules: rules))
  }

  private func receive(_ frames: [[UInt8]], _ bench: SharedBench, _ peers: [SharedPeer]) throws {
    for frame in frames {
      bench.wire.arriving.append(frame)
      try bench.turns(3)
      for peer in peers {
        try peer.take()
      }
    }
  }

  private func numbers(_ peer: SharedPeer) -> [Int] {
    defer { peer.received = [] }
    return peer.received.map(SharedFrames.number)
  }

  @Test func eachActionDoesWhatItSays() throws {
    let bench = try SharedBench()
    let peers = [try bench.attach(0, name: "a"), try bench.attach(1, name: "b")]
    let page = try set(
      """
      rule drops source=10.0.0.1 drop
      rule moves source=10.0.0.2 to=b
      rule copies source=10.0.0.3 clone=b
      rule gone source=10.0.0.4 to=nobody
      rule both source=10.0.0.5 to=nobody clone=a,b
      """, bench)
    try receive((1...6).map { incoming(0, Int($0), from: UInt8($0)) }, bench, peers)
    #expect(numbers(peers[0]) == [3, 5, 6])
    #expect(numbers(peers[1]) == [2, 3, 5])
    let counters = bench.counters
    #expect(counters["rx_dropped_rule"] == 2 && counters["rx_dropped_unclaimed"] == 0)
    #expect((0..<5).map { value(.packets, $0, of: 5, page) } == [1, 1, 1, 1, 1])
    #expect((0..<5).map { value(.absent, $0, of: 5, page) } == [0, 0, 0, 1, 1])
    #expect(value(.bytes, 0, of: 5, page) == UInt64(incoming(0, 1).count))
    // Without rules claims decide again.
    try set("", bench, generation: 2)
    try receive([incoming(0, 7, from: 1)], bench, peers)
    #expect(numbers(peers[0]) == [7] && numbers(peers[1]) == [])
    #expect(bench.isConserved(peers))
  }

  /// Flows keep their instance while another one of the set goes and comes.
  @Test func flowsAreSpreadAndStay() throws {
    let bench = try SharedBench()
    let names = ["a", "b", "c"]
    let peers = try names.enumerated().map { try bench.attach($0.offset, name: $0.element) }
    try set("rule all to=a,b,c", bench)
    let frames = (1...120).map { incoming(5, $0, from: UInt8($0)) }
    func owners(_ peers: [SharedPeer]) throws -> [Int: Int] {
      try receive(frames, bench, peers)
      return Dictionary(
        uniqueKeysWithValues: peers.flatMap { peer in numbers(peer).map { ($0, peer.index) } })
    }
    let before = try owners(peers)
    #expect(before.count == 120)
    #expect((0..<3).allSatisfy { index in before.values.count { $0 == index } > 20 })
    #expect(try bench.detach(peers[1]))
    let without = try owners([peers[0], peers[2]])
    #expect(without.count == 120)
    #expect(without.allSatisfy { before[$0.key] == 1 || before[$0.key] == $0.value })
    let again = try bench.attach(1, generation: 2, name: "b")
    #expect(try owners([peers[0], again, peers[2]]) == before)
  }

  /// The packets of a flow that is known are found by their key alone: whatever changes, they see it.
  @Test func aFlowThatIsKnownFollowsEachChange() throws {
    let bench = try SharedBench()
    let a = try bench.attach(0, name: "a")
    let b = try bench.attach(1, name: "b")
    func go(_ first: Int) throws -> (a: [Int], b: [Int]) {
      try receive((first..<first + 3).map { incoming(0, $0) }, bench, [a, b])
      return (numbers(a), numbers(b))
    }
    #expect(try go(10) == ([10, 11, 12], []))
    let drops = try set("rule d protocol=udp drop", bench)
    #expect(try go(20) == ([], []))
    #expect(value(.packets, 0, of: 1, drops) == 3 && bench.counters["rx_dropped_rule"] == 3)
    let page = try set("rule n source=1.2.3.4 drop\nrule d protocol=udp to=b", bench, generation: 2)
    #expect(try go(30) == ([], [30, 31, 32]))
    #expect(value(.packets, 0, of: 2, page) == 0 && value(.packets, 1, of: 2, page) == 3)
    try set("", bench, generation: 3)
    #expect(try go(40) == ([40, 41, 42], []))
    #expect(try bench.detach(a))
    #expect(try go(50) == ([], []))
    #expect(bench.counters["rx_dropped_unclaimed"] == 3)
  }

  /// More flows than are remembered, in no order, and others that come once each.
  @Test func manyFlowsAreToldApart() throws {
    let bench = try SharedBench()
    let peers = [try bench.attach(0, name: "a"), try bench.attach(1, name: "b")]
    let page = try set("rule odd source=10.1.0.0/16 to=b", bench)
    func frame(_ flow: Int) -> [UInt8] {
      SharedFrames.udp(
        from: [10, UInt8(flow & 1), UInt8(flow >> 9), UInt8(flow >> 1 & 255)],
        to: SharedFrames.address(0), number: flow)
    }
    var generator = SystemRandomNumberGenerator()
    for flows in [0..<64, 0..<6000, 0..<64, 6000..<7000, 0..<64] {
      for _ in 0..<2 {
        for flow in flows.shuffled(using: &generator) {
          bench.wire.arriving.append(frame(flow))
          if bench.wire.arriving.count == 16 { try bench.turns(2) }
          for peer in peers { try peer.take() }
        }
        try bench.turns(4)
        for peer in peers { try peer.take() }
        let got = peers.map { numbers($0).sorted() }
        #expect(got == [flows.filter { $0 & 1 == 0 }, flows.filter { $0 & 1 == 1 }])
      }
    }
    #expect(value(.packets, 0, of: 1, page) == 2 * (3 * 32 + 3000 + 500))
    #expect(bench.isConserved(peers))
  }

  /// Protocols of one's own are looked for in each packet: what a key has does not say what they are.
  @Test func fieldsOfOnesOwnAreLookedAtInEachPacket() throws {
    let bench = try SharedBench()
    let peers = [try bench.attach(0, name: "a"), try bench.attach(1, name: "b")]
    try set(
      "protocol mine above=udp type=9 header=4 field=kind:0:1\nrule two mine.kind=2 to=b", bench)
    try receive((1...4).map { incoming(0, $0) } + (1...4).map { incoming(0, $0) }, bench, peers)
    #expect(numbers(peers[0]) == [1, 3, 4, 1, 3, 4])
    #expect(numbers(peers[1]) == [2, 2])
  }

  /// Both directions of a flow belong to one: who gets the answers may send.
  @Test func whoGetsTheAnswersMaySend() throws {
    let bench = try SharedBench()
    let a = try bench.attach(0, name: "a")
    let b = try bench.attach(1, name: "b")
    let frame = SharedFrames.udp(
      from: SharedFrames.address(0), to: SharedFrames.far, number: 1, isOutgoing: true)
    b.send(frame, tag: 1)
    try bench.turns(20)
    #expect(bench.wire.sent.isEmpty && bench.counters["tx_i1_refused_source"] == 1)
    try set("rule all source=10.0.0.254 protocol=udp to=b", bench)
    b.send(frame, tag: 2)
    try bench.turns(20)
    #expect(bench.wire.sent.count == 1)
    var spoofed = frame
    spoofed[6] ^= 2
    b.send(spoofed, tag: 3)
    try bench.turns(20)
    #expect(bench.wire.sent.count == 1 && bench.counters["tx_i1_refused_source"] == 2)
    try b.take()
    #expect(b.completed == [1, 2, 3])
    _ = a
  }

  @Test func aMarkIsTheTagOfThePacket() throws {
    let bench = try SharedBench()
    let peer = try bench.attach(0, name: "a")
    try set("rule marked source=10.0.0.7 mark=4711", bench)
    for (host, mark) in [(UInt8(7), UInt16(4711)), (8, 0)] {
      bench.wire.arriving.append(incoming(0, 1, from: host))
      try bench.turns(3)
      try peer.end.receive.pop(into: &peer.burst)
      #expect(peer.burst.count > 0 && peer.burst[0].tag == mark)
      peer.burst.removeAll()
    }
  }

  /// What the supervisor says is checked; nothing changes, and nothing stays open.
  @Test func whatMakesNoSenseIsRefused() throws {
    let bench = try SharedBench()
    let one = try Message("rule one to=a")
    let bytes = one.bytes
    func tell(_ text: String, _ descriptors: [Int32]) throws {
      bench.tell("rules generation=9 \(text)", descriptors)
      #expect(try bench.waits(for: "refused id=? what=rules generation=9 reason="))
    }
    try tell("bytes=\(bytes) counters=4096", [one.text.descriptor])
    try tell("bytes=\(bytes)", one.descriptors)
    try tell("bytes=-1 counters=4096", one.descriptors)
    try tell("bytes=\(1 << 30) counters=4096", one.descriptors)
    try tell("bytes=8192 counters=4096", one.descriptors)
    try tell("bytes=\(bytes - 3) counters=4096", one.descriptors)
    let many = (0..<200).map { "rule r\($0) to=a\n" }.joined()
    let large = try Message(many)
    try tell("bytes=\(large.bytes) counters=4096", large.descriptors)
  }
}

@Suite struct PolicerTests {
  private let start: UInt64 = 1 << 40

  /// - Returns: how many of packets that come every so many nanoseconds pass.
  private func passed(
    _ limit: RateLimit, count: Int, every step: UInt64, bytes: Int = 1000
  ) -> Int {
    let state = PolicerState(now: start)
    let policer = state.policer(limit)
    return (0..<count).count {
      policer.allows(byteCount: bytes, now: start + UInt64($0) * step)
    }
  }

  @Test func theRateIsKept() {
    // 10 s at 5000 a second, of which 1000 pass, and the burst.
    #expect(passed(RateLimit(1000, .packets, burst: 50), count: 50_000, every: 200_000) == 10_049)
    #expect(
      passed(RateLimit(8_000_000, .bits, burst: 10_000), count: 50_000, every: 200_000) == 10_010)
    // Less than the rate passes whole.
    #expect(passed(RateLimit(1000, .packets, burst: 1), count: 1000, every: 1_000_000) == 1000)
    #expect(passed(RateLimit(1, .packets, burst: 1), count: 10, every: 1) == 1)
    #expect(passed(RateLimit(.max, .bits), count: 1000, every: 0) == 1000)
    #expect(passed(RateLimit(1, .bits, burst: .max), count: 1000, every: 0) > 0)
  }

  /// After a rest there is a burst again, not more.
  @Test func restIsWorthABurst() {
    let state = PolicerState(now: start)
    let policer = state.policer(RateLimit(100, .packets, burst: 5))
    #expect((0..<20).count { _ in policer.allows(byteCount: 60, now: start) } == 5)
    let later = start + 3_600_000_000_000
    #expect((0..<20).count { _ in policer.allows(byteCount: 60, now: later) } == 5)
  }
}
