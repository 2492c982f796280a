import Testing

@testable import Memory

@Suite struct SendBufferTests {
  static let byteCount = 4 << 20

  /// A pool with segments of every size, over memory aligned to the largest.
  func withPool(
    byteCount: Int = Self.byteCount, shares: [Int] = [1, 4, 2, 1, 1, 2, 1, 4],
    _ body: (borrowing SendBufferPool) throws -> Void
  ) rethrows {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 128 << 10)
    defer { memory.deallocate() }
    let pool = SendBufferPool(SegmentPool(arena: memory, range: 0..<byteCount, shares: shares))
    try body(pool)
    #expect(pool.totalReferences == 0)
    for sizeClass in 0..<SegmentPool.classCount {
      #expect(pool.available(in: sizeClass) == pool.segmentCounts[sizeClass])
    }
  }

  private func error(_ body: () throws -> Void) -> SendBufferError? {
    do { try body() } catch { return error as? SendBufferError }
    return nil
  }

  @Test func aBufferHoldsItsSegmentAndItsBytesAreChecked() throws {
    try withPool { pool in
      var buffer = try pool.allocate(byteCount: 3000)
      #expect(buffer.byteCount == 4096)
      #expect(pool.references(at: buffer.address) == 1)
      var bytes = buffer.bytes
      bytes.storeBytes(of: 7, toByteOffset: 4095, as: UInt8.self)
      #expect(buffer.address.load(fromByteOffset: 4095, as: UInt8.self) == 7)
    }
  }

  @Test func continuingWritesExtendAndOthersAddAReference() throws {
    try withPool { pool in
      var entries = PendingEntries(pool, capacity: 2)
      do {
        let buffer = try pool.allocate(byteCount: 4096)
        let address = UnsafeRawPointer(buffer.address)
        try entries.append(address, byteCount: 1000)
        try entries.append(address + 1000, byteCount: 500)
        #expect(entries.count == 1 && pool.references(at: address) == 2)
        // A gap, the same bytes once more, and nothing.
        try entries.append(address + 2000, byteCount: 10)
        try entries.append(address + 2000, byteCount: 10)
        try entries.append(address, byteCount: 0)
        #expect(entries.count == 3 && pool.references(at: address) == 4)
      }
      #expect(pool.totalReferences == 3)
      // Partly: the entry stays, and what continues its end still extends it.
      entries.acknowledge(1200)
      #expect(entries.count == 3 && entries[0].byteCount == 300)
      entries.acknowledge(310)
      #expect(entries.count == 1 && pool.totalReferences == 1)
      #expect(pool.counts == .init(exhausted: 0, waits: 0, entries: 3, extended: 1))
    }
  }

  @Test func neighboursAreDifferentSegments() throws {
    try withPool { pool in
      let first = try pool.allocate(byteCount: 1024)
      let second = try pool.allocate(byteCount: 1024)
      #expect(first.address + 1024 == second.address)
      var entries = PendingEntries(pool)
      try entries.append(first.address, byteCount: 1024)
      try entries.append(second.address, byteCount: 1024)
      #expect(entries.count == 2)
      #expect(pool.references(at: first.address) == 2 && pool.references(at: second.address) == 2)
    }
  }

  @Test func wrongAddressesAreRefusedAndChangeNothing() throws {
    try withPool { pool in
      var entries = PendingEntries(pool)
      let buffer = try pool.allocate(byteCount: 2048)
      let address = UnsafeRawPointer(buffer.address)
      let elsewhere = UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8)
      defer { elsewhere.deallocate() }
      var freed = address
      do {
        let other = try pool.allocate(byteCount: 65536)
        freed = UnsafeRawPointer(other.address)
      }
      func write(_ address: UnsafeRawPointer, _ count: Int) -> SendBufferError? {
        do throws(SendBufferError) { try entries.append(address, byteCount: count) } catch {
          return error
        }
        return nil
      }
      // The last: a header, before all data.
      for wrong in [
        UnsafeRawPointer(elsewhere), UnsafeRawPointer(bitPattern: 1)!,
        UnsafeRawPointer(bitPattern: UInt.max)!, address - Int(bitPattern: address) % 4096 - 65536,
      ] where pool.references(at: wrong) == nil {
        #expect(write(wrong, 1) == .notInPool(address: UInt(bitPattern: wrong)))
      }
      #expect(write(address + 2047, 1) == nil)
      entries.removeAll()
      let number = UInt(bitPattern: address)
      #expect(write(address, 2049) == .crossesEnd(address: number, byteCount: 2049, left: 2048))
      #expect(write(address, -1) == .crossesEnd(address: number, byteCount: -1, left: 2048))
      #expect(write(address, .max) == .crossesEnd(address: number, byteCount: .max, left: 2048))
      #expect(write(freed, 1) == .notAllocated(address: UInt(bitPattern: freed)))
      #expect(entries.isEmpty && pool.totalReferences == 1)
    }
  }

  @Test func sizesThatThereAreNot() {
    withPool { pool in
      for count in [0, -1, 131_073, .max] {
        #expect(
          error { _ = try pool.allocate(byteCount: count) }
            == .badSize(needed: count, limit: 131_072))
      }
    }
  }

  @Test func exhaustionAndItsEndAreToldOnce() throws {
    try withPool(byteCount: 1 << 20, shares: [1, 0, 0, 0, 0, 0, 0, 1]) { pool in
      final class Told {
        var exhausted: [Int] = []
        var available = 0
      }
      let told = Told()
      pool.onExhausted { told.exhausted.append($0) }
      pool.onAvailable { told.available += 1 }
      let large = pool.segmentCounts[7]
      var held: [Held] = []
      for _ in 0..<large { held.append(Held(try pool.allocate(byteCount: 100_000))) }
      for _ in 0..<3 {
        #expect(
          error { _ = try pool.allocate(byteCount: 100_000) } == .exhausted(needed: 100_000))
      }
      // Smaller ones are there.
      _ = try pool.allocate(byteCount: 10)
      pool.resumeWaiting()
      #expect(told.exhausted == [100_000] && told.available == 0)
      held.removeLast()
      pool.resumeWaiting()
      pool.resumeWaiting()
      #expect(told.available == 1 && pool.counts.exhausted == 1)
    }
  }

  @Test func thoseWhoWaitGetSegmentsInTheirOrder() throws {
    try withPool(byteCount: 1 << 20, shares: [1, 0, 0, 0, 0, 0, 0, 1]) { pool in
      var held: [Held] = []
      while let buffer = try? pool.allocate(byteCount: 1) { held.append(Held(buffer)) }
      final class Order {
        var names: [String] = []
        var held: [Held] = []
      }
      let order = Order()
      var ended: SendBufferWait?
      for (name, byteCount) in [("a", 50_000), ("b", 100), ("c", 100), ("d", 60_000), ("e", 1)] {
        let wait = try pool.allocate(byteCount: byteCount) { buffer in
          order.names.append(name)
          order.held.append(Held(buffer))
        }
        if name == "c" { ended = wait }
      }
      pool.resumeWaiting()
      #expect(order.names.isEmpty && pool.counts.waits == 5)
      pool.cancel(try #require(ended))
      // A small one is of no use to the first, but to the second.
      held.remove(at: 0)
      pool.resumeWaiting()
      #expect(order.names == ["b"])
      // Nobody may overtake e.
      held.remove(at: 0)
      #expect(error { _ = try pool.allocate(byteCount: 1) } == .exhausted(needed: 1))
      pool.resumeWaiting()
      #expect(order.names == ["b", "e"])
      held.removeAll()
      // The first of those who wait is the first that a large one goes to.
      pool.resumeWaiting()
      #expect(order.names == ["b", "e", "a", "d"])
      #expect(pool.waitingCount == 0)
      order.held.removeAll()
    }
  }

  /// A buffer in an array.
  final class Held {
    var buffer: SendBuffer?
    init(_ buffer: consuming SendBuffer) { self.buffer = consume buffer }
  }
}
