import CLinux
import Channel
import Histogram
import Memory

/// The memory of a channel between two processes of the benchmark: what the end in the other process maps too.
struct ChannelPair: ~Copyable {
  static let layout = ChannelLayout(queues: 1, slots: 1024)!
  /// The receive part, then as much for the instance.
  static let partBytes = 8 << 20
  static let arenaBytes = 2 * partBytes + (2 << 20)

  let memory: ChannelMemory
  let arena: Arena

  init() throws {
    let memory = try ChannelMemory(layout: Self.layout)
    arena = try Arena.withBestPages(byteCount: Self.arenaBytes, name: "martlet-bench-channel")
    self.memory = memory
  }

  /// - Parameters:
  ///   - channel: descriptor of the channel's memory.
  ///   - arena: descriptor of the packets' memory.
  init(adoptingChannel channel: Int32, arena: Int32) throws {
    let memory = try ChannelMemory(adopting: channel, layout: Self.layout)
    self.arena = try Arena(adopting: arena, byteCount: Self.arenaBytes)
    self.memory = memory
  }

  // Invariant: both words lie in the arena's last part, which holds no packets.
  /// Set by the instance's end when its time is over.
  var isOver: UnsafeMutableRawPointer { arena.address + 2 * Self.partBytes }
  /// Set by the host's end when it sends no more.
  var isQuiet: UnsafeMutableRawPointer { arena.address + 2 * Self.partBytes + 64 }
}

/// The driver host's side: makes packets and takes segments back, or waits for echoes. One thread.
struct ChannelHostSide: ~Copyable {
  private var end: HostEnd
  private var ledger = SegmentLedger(firstUnit: 0, byteCount: ChannelPair.partBytes)
  private var sending = Burst(capacity: 64)
  private var returned = Burst(capacity: 64)
  private let packets: UnsafeMutableRawPointer
  private let isOver: UnsafeMutableRawPointer
  private let isQuiet: UnsafeMutableRawPointer

  init(_ pair: borrowing ChannelPair) {
    end = HostEnd(pair.memory, queue: 0, instanceDoorbell: -1)
    packets = pair.arena.address
    isOver = pair.isOver
    isQuiet = pair.isQuiet
  }

  /// Before a run: nothing is over.
  func prepare() {
    release_store32(isOver, 0)
    release_store32(isQuiet, 0)
  }

  /// Packets of 64 bytes, written anew each, in bursts, until the other end says that it is over.
  /// - Returns: this thread's share of its core.
  @inline(never)
  mutating func produce(burst: Int) throws -> Double {
    let watch = Stopwatch()
    while relaxed_load32(isOver) == 0 {
      if sending.isEmpty {
        ledger.lend(upTo: burst, into: &sending)
        for index in 0..<sending.count {
          ledger.give(sending[index].segment)
          sending[index].length = 64
          write(at: Int(sending[index].position), UInt64(truncatingIfNeeded: index))
        }
      }
      try exchange()
    }
    let share = watch.cpuShare
    // From here on nothing new goes out, so that the other end can come to its end too.
    release_store32(isQuiet, 1)
    while ledger.instanceCount > sending.count { try takeBack() }
    for index in 0..<sending.count { ledger.reclaim(sending[index].segment) }
    sending.removeAll()
    return share
  }

  /// Descriptors alone: nothing is written and nothing comes back.
  @inline(never)
  mutating func produceDescriptors(burst: Int) -> Double {
    let watch = Stopwatch()
    while relaxed_load32(isOver) == 0 {
      if sending.isEmpty {
        for tag in 0..<burst {
          sending.append(
            Descriptor(
              segment: UInt32(truncatingIfNeeded: tag &* 2), length: 64,
              tag: UInt16(truncatingIfNeeded: tag)))
        }
      }
      end.receive.push(&sending)
    }
    let share = watch.cpuShare
    sending.removeAll()
    release_store32(isQuiet, 1)
    return share
  }

  @inline(__always)
  private mutating func exchange() throws {
    end.receive.push(&sending)
    end.doorbell.ring()
    try takeBack()
  }

  @inline(__always)
  private mutating func takeBack() throws {
    try end.free.pop(into: &returned)
    for index in 0..<returned.count { try ledger.takeBack(returned[index].segment) }
    returned.removeAll()
  }

  @inline(__always)
  private func write(at position: Int, _ word: UInt64) {
    let bytes = packets + position
    for offset in stride(from: 0, to: 64, by: 8) { relaxed_store64(bytes + offset, word) }
  }

  /// Bursts that the other end sends back, one at a time on the way.
  /// - Returns: round trips in nanoseconds.
  @inline(never)
  mutating func ping(
    burst: Int, milliseconds: Int
  ) throws -> (histogram: Histogram<UInt64>, cpuShare: Double) {
    var histogram = Histogram<UInt64>(
      highestTrackableValue: 1_000_000_000, numberOfSignificantValueDigits: .three)
    let watch = Stopwatch()
    var rounds = 0
    while watch.elapsed < UInt64(milliseconds) * 1_000_000 {
      let start = monotonic_nanoseconds()
      ledger.lend(upTo: burst, into: &sending)
      for index in 0..<sending.count {
        ledger.give(sending[index].segment)
        sending[index].length = 64
        write(at: Int(sending[index].position), UInt64(truncatingIfNeeded: index))
      }
      var back = 0
      while back < burst {
        try exchange()
        try end.transmit.pop(into: &returned)
        back += returned.count
        returned.removeAll()
      }
      rounds += 1
      if rounds > 100 { histogram.record(monotonic_nanoseconds() - start) }
    }
    let share = watch.cpuShare
    release_store32(isOver, 1)
    while ledger.instanceCount > 0 { try exchange() }
    return (histogram, share)
  }
}
