import CLwIP
import Memory
import Stacks
import Testing

@testable import LwIPStack

/// Transfers from an application's memory over lwIP to a peer that does what peers should not: at the end of each the
/// bytes are right and no segment has a reference.
@Suite(.serialized) struct ZeroCopyConnectionTests {
  let bench = LwIPBench.shared

  private func expectPattern(_ bytes: [UInt8]) {
    let wrong = bytes.withUnsafeBytes { PatternContent.firstDifference($0, offset: 0) }
    #expect(wrong == nil)
  }

  private func expectNothingHeld() throws {
    bench.isHolding = false
    bench.completeAll()
    _ = try bench.sent()
    #expect(bench.references == 0)
    let buffers = bench.stack.buffers.segmentCounts.indices.allSatisfy {
      bench.stack.buffers.available(in: $0) == bench.stack.buffers.segmentCounts[$0]
    }
    #expect(buffers)
    #expect(bench.counter("stack_tx_stray_completions") == 0)
  }

  /// Goes on until the peer has everything, or `turns` are over.
  private func run(
    _ peer: RawPeer, _ sender: PatternSender, turns: Int = 4000,
    _ each: (Int) throws -> Void = { _ in }
  ) throws {
    for turn in 0..<turns where sender.end == nil {
      try sender.step()
      if try peer.receive() == 0 { tcpTimer() }
      try each(turn)
      try peer.acknowledge()
      bench.stack.buffers.resumeWaiting()
    }
  }

  @Test func everyByteArrivesInPlaceThroughPartialWrites() throws {
    let copied = bench.counter("stack_tx_copied_bytes")
    let moved = bench.counter("stack_tx_lwip_copied_bytes")
    let sender = PatternSender(bench, byteCount: 8 << 20, seed: 1)
    let peer = try RawPeer(bench)
    // Less than the stack takes: it fills up.
    peer.window = 1 << 16
    try run(peer, sender)
    #expect(sender.end == .closed && peer.hasFinished && peer.received.count == 8 << 20)
    expectPattern(peer.received)
    #expect(sender.acknowledged == 8 << 20 && sender.partial > 10)
    #expect(bench.counter("stack_tx_copied_bytes") == copied)
    #expect(bench.counter("stack_tx_lwip_copied_bytes") == moved)
    try expectNothingHeld()
  }

  @Test(arguments: 1...6)
  func lossesAndPartialAcknowledgements(seed: Int) throws {
    var random = Linear(state: UInt64(seed))
    let sender = PatternSender(bench, byteCount: 3 << 20, seed: seed)
    let peer = try RawPeer(bench)
    var lost: Set<UInt32> = []
    // Every eighth segment is lost the first time, some again.
    peer.loses = { segment in
      if lost.contains(segment.sequence) { return random.next() % 16 == 0 }
      lost.insert(segment.sequence)
      return random.next() % 8 == 0
    }
    try run(peer, sender) { turn in
      // In the middle of a segment, and the same more than three times.
      if turn % 3 == 0 { try peer.acknowledge(short: UInt32(turn % 1459)) }
      if turn % 5 == 0 { for _ in 0..<4 { try peer.acknowledge() } }
      // The device is late now and then: what it holds cannot be sent once more.
      bench.isHolding = turn % 7 < 3
    }
    #expect(sender.end == .closed && peer.received.count == 3 << 20 && lost.count > 2000)
    expectPattern(peer.received)
    try expectNothingHeld()
  }

  @Test func aResetByThePeerLeavesOnlyWhatTheDeviceReads() throws {
    for seed in 1...20 {
      let sender = PatternSender(bench, byteCount: 1 << 20, seed: seed)
      let peer = try RawPeer(bench)
      bench.isHolding = true
      for _ in 0..<seed {
        try sender.step()
        try peer.receive()
        try peer.acknowledge(short: UInt32(min(peer.received.count, 100)))
      }
      #expect(bench.references > 0)
      try peer.reset()
      #expect(sender.end == .lost(code: Int(ERR_RST.rawValue)))
      // No entry and no buffer: packets only. Their bytes are still as they were.
      #expect(sender.connection?.pendingByteCount == 0 && bench.references > 0)
      expectPattern(peer.received)
      try expectNothingHeld()
    }
  }

  @Test func aResetByTheApplicationEndsAtOnce() throws {
    for seed in 1...20 {
      let sender = PatternSender(bench, byteCount: 1 << 20, seed: seed)
      sender.closesAtEnd = false
      let peer = try RawPeer(bench)
      bench.isHolding = seed % 2 == 0
      for _ in 0..<seed {
        try sender.step()
        try peer.receive()
        try peer.acknowledge()
      }
      if seed % 3 == 0 {
        // While lwIP calls.
        sender.whenReceived = { $0.reset() }
        try peer.say("now")
      } else {
        sender.connection?.reset()
      }
      #expect(sender.end == .reset)
      try peer.receive()
      #expect(peer.wasReset)
      try expectNothingHeld()
    }
  }

  @Test func aCloseSendsWhatWasTakenFirst() throws {
    let sender = PatternSender(bench, byteCount: 4 << 20, seed: 3)
    sender.closesAtEnd = false
    let peer = try RawPeer(bench)
    try sender.step()
    let connection = try #require(sender.connection)
    let taken = connection.pendingByteCount
    #expect(taken > 1 << 20)
    sender.connection?.close()
    #expect(!connection.isOpen && sender.end == nil)
    let buffer = try bench.stack.buffers.allocate(byteCount: 10)
    #expect(try connection.write(buffer.address, byteCount: 10) == 0)
    for _ in 0..<500 where sender.end == nil {
      if try peer.receive() == 0 { tcpTimer() }
      try peer.acknowledge()
    }
    #expect(sender.end == .closed && peer.hasFinished && peer.received.count == taken)
    expectPattern(peer.received)
    _ = consume buffer
    try expectNothingHeld()
  }

  @Test func aPeerThatGoesAwayDuringTheCloseIsLost() throws {
    let sender = PatternSender(bench, byteCount: 1 << 20, seed: 4)
    let peer = try RawPeer(bench)
    try sender.step()
    try sender.step()
    bench.isHolding = true
    try peer.receive()
    #expect(sender.isDone && sender.end == nil)
    try peer.reset()
    #expect(sender.end == .lost(code: Int(ERR_RST.rawValue)))
    try expectNothingHeld()

    // One that never answers again: lwIP gives up by itself.
    let second = PatternSender(bench, byteCount: 100_000, seed: 5)
    let silent = try RawPeer(bench)
    try second.step()
    for _ in 0..<20_000 where second.end == nil {
      tcpTimer()
      try silent.receive()
    }
    #expect(second.end == .lost(code: Int(ERR_ABRT.rawValue)))
    try expectNothingHeld()
  }

  @Test func dataAfterTheCloseAborts() throws {
    let sender = PatternSender(bench, byteCount: 1 << 20, seed: 6)
    let peer = try RawPeer(bench)
    try sender.step()
    #expect(sender.isDone)
    try peer.say("more")
    #expect(sender.end == .lost(code: Int(ERR_ABRT.rawValue)))
    try expectNothingHeld()
  }

  @Test func closedAndSmallWindows() throws {
    let moved = bench.counter("stack_tx_lwip_copied_bytes")
    let sender = PatternSender(bench, byteCount: 1 << 20, seed: 7)
    let peer = try RawPeer(bench)
    try run(peer, sender, turns: 20_000) { turn in
      peer.window = turn % 40 < 20 ? 0 : turn % 40 < 39 ? 384 : 1 << 20
    }
    #expect(sender.end == .closed && peer.received.count == 1 << 20)
    expectPattern(peer.received)
    // Probes, and segments that lwIP splits: they are seen.
    #expect(bench.counter("stack_tx_lwip_copied_bytes") > moved)
    try expectNothingHeld()
  }

  @Test func aLostAddressKeepsNoSegmentOfAConnectionThatIsGone() throws {
    let sender = PatternSender(bench, byteCount: 1 << 20, seed: 8)
    let peer = try RawPeer(bench)
    peer.answersARP = false
    etharp_cleanup_netif(bench.stack.netif)
    try sender.step()
    try peer.receive()
    #expect(peer.received.isEmpty)
    sender.connection?.reset()
    // The queue that waits for the address has copies: nothing of it is in the application's memory.
    #expect(bench.references == 0)
    var fresh = try bench.stack.buffers.allocate(byteCount: 131_072)
    var bytes = fresh.bytes
    for at in stride(from: 0, to: bytes.byteCount, by: 8) {
      bytes.storeBytes(of: .max, toByteOffset: at, as: UInt64.self)
    }
    peer.answersARP = true
    try peer.answerARP()
    #expect(try peer.receive() > 0)
    expectPattern(peer.received)
    #expect(bench.references == 1)
    _ = consume fresh
    try expectNothingHeld()
  }

  @Test func manySmallPiecesAreMadeOne() throws {
    let sender = PatternSender(bench, byteCount: 0, seed: 9)
    sender.closesAtEnd = false
    let peer = try RawPeer(bench)
    let connection = try #require(sender.connection)
    let copied = bench.counter("stack_tx_copied_bytes")
    let first = try bench.stack.buffers.allocate(byteCount: 1024)
    let second = try bench.stack.buffers.allocate(byteCount: 1024)
    PatternContent.fill(.init(start: first.address, count: 1024), offset: 0)
    PatternContent.fill(.init(start: second.address, count: 1024), offset: 0)
    // A gap after each byte, so that lwIP cannot put them together.
    for at in 0..<300 {
      let address = (at % 2 == 0 ? first.address : second.address) + at
      #expect(try connection.write(address, byteCount: 1) == 1)
    }
    #expect(bench.references == 302)
    connection.flush()
    try peer.receive()
    try peer.acknowledge()
    #expect(peer.received.count == 300)
    expectPattern(peer.received)
    #expect(bench.counter("stack_tx_copied_bytes") > copied && bench.references == 2)
    connection.close()
    _ = consume first
    _ = consume second
    try expectNothingHeld()
  }

  @Test func exhaustionWaitsAndGoesOnWithTheAcknowledgements() throws {
    var held: [Int] = []
    // Two applications, and a pool of which they fill their part of lwIP's window each.
    let waits = bench.counter("stack_zbuf_waits")
    var senders: [(PatternSender, RawPeer)] = []
    for seed in 11...16 {
      let sender = PatternSender(bench, byteCount: 4 << 20, seed: seed)
      senders.append((sender, try RawPeer(bench)))
    }
    for _ in 0..<8000 where senders.contains(where: { $0.0.end == nil }) {
      var count = 0
      for (sender, _) in senders { try sender.step() }
      // One receives for all: each sees its own.
      let frames = try bench.sent()
      for (_, peer) in senders { count += try peer.receive(frames) }
      if count == 0 { tcpTimer() }
      for (_, peer) in senders { try peer.acknowledge() }
      bench.stack.buffers.resumeWaiting()
      held.append(bench.references)
    }
    for (sender, peer) in senders {
      #expect(sender.end == .closed && peer.received.count == 4 << 20)
      expectPattern(peer.received)
    }
    #expect(bench.counter("stack_zbuf_waits") > waits)
    try expectNothingHeld()
  }

  @Test func wrongAddressesAreRefused() throws {
    let sender = PatternSender(bench, byteCount: 0, seed: 17)
    sender.closesAtEnd = false
    _ = try RawPeer(bench)
    let connection = try #require(sender.connection)
    let buffer = try bench.stack.buffers.allocate(byteCount: 2048)
    for (address, count) in [
      (UnsafeRawPointer(buffer.address), 2049),
      (UnsafeRawPointer(bench.environment.arena.address), 1),
      (UnsafeRawPointer(buffer.address) + 2048, 4096),
    ] {
      #expect(throws: SendBufferError.self) { try connection.write(address, byteCount: count) }
    }
    #expect(connection.pendingByteCount == 0 && bench.references == 1)
    connection.reset()
    _ = consume buffer
    try expectNothingHeld()
  }
}
