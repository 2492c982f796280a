import CLinux
import Driver
import Histogram
import Memory
import VirtioNet

/// What a front-end does with its driver and nothing around it, as testpmd does with its own: takes, makes, sends back.
/// One thread.
struct FrontLoop: ~Copyable {
  /// The receive part, then as much for packets of its own.
  static let arenaBytes = 2 * partBytes
  private static let partBytes = 8 << 20

  var burstSize = 32
  var packetBytes = 64

  private var pair: VirtioNetQueuePair
  private var ledger = SegmentLedger(
    firstUnit: 0, byteCount: partBytes, headerBytes: VirtioNet.receiveHeaderBytes)
  private var posts = Burst(capacity: 64)
  private var received = Burst(capacity: 128)
  private var sending = Burst(capacity: 128)
  private var completed = Burst(capacity: 64)
  /// Own packets that the device does not hold.
  private var free: [UInt16] = Array((0..<1024).reversed())
  private let packets: UnsafeMutableRawPointer

  init(_ pair: consuming VirtioNetQueuePair, packets: UnsafeMutableRawPointer) {
    self.pair = pair
    self.packets = packets
  }

  mutating func fillReceiveRing() throws {
    while pair.receiveRoom > 0 { try refill() }
  }

  /// Takes packets and drops them. Counts from a moment after the first.
  @inline(never)
  mutating func receive(_ milliseconds: Int) throws -> Sample {
    try awaitTraffic { front in try front.take() }
    return try rate(milliseconds) { front in try front.take() }
  }

  /// Makes packets, with a header written into each, as fast as the device takes them.
  @inline(never)
  mutating func transmit(_ milliseconds: Int) throws -> Sample {
    let sample = try rate(milliseconds) { front in try front.make() }
    try drain()
    return sample
  }

  /// Sends each packet back from the buffer in which it came.
  @inline(never)
  mutating func forward(_ milliseconds: Int) throws -> Sample {
    try awaitTraffic { front in try front.echo() }
    let sample = try rate(milliseconds) { front in try front.echo() }
    try drain()
    return sample
  }

  /// One packet that the back-end sends back, again and again: p50, p99, p99.9, p99.99 in nanoseconds.
  @inline(never)
  mutating func ping(_ milliseconds: Int) throws -> Sample {
    try drain()
    var histogram = Histogram<UInt64>(
      highestTrackableValue: 1_000_000_000, numberOfSignificantValueDigits: .three)
    let watch = Stopwatch()
    var rounds = 0
    while watch.elapsed < UInt64(milliseconds) * 1_000_000 {
      let start = monotonic_nanoseconds()
      try complete()
      guard let tag = free.popLast() else { break }
      let slot = ownSlot(tag)
      for offset in stride(from: 0, to: 64, by: 8) {
        relaxed_store64(packets + Int(slot.position) + offset, UInt64(tag))
      }
      sending.append(slot)
      try pair.transmit(&sending)
      while try take() == 0 {
        // Lost: the back-end is gone or has not begun.
        if monotonic_nanoseconds() - start > 50_000_000 {
          return Sample([0, 0, 0, 0], cpuShare: 0)
        }
      }
      rounds += 1
      if rounds > 100 { histogram.record(monotonic_nanoseconds() - start) }
    }
    return Sample(
      [50, 99, 99.9, 99.99].map { Double(histogram.valueAtPercentile($0)) },
      cpuShare: watch.cpuShare)
  }

  /// Million packets a second over so long; `burst` says how many there were in one.
  @inline(__always)
  private mutating func rate(
    _ milliseconds: Int, _ burst: (inout FrontLoop) throws -> Int
  ) throws -> Sample {
    let watch = Stopwatch()
    var count = 0
    var turns = 0
    while true {
      turns &+= 1
      if turns & 63 == 0 && watch.elapsed >= UInt64(milliseconds) * 1_000_000 { break }
      count &+= try burst(&self)
    }
    return Sample([Double(count) * 1000 / Double(watch.elapsed)], cpuShare: watch.cpuShare)
  }

  /// Lets 50 milliseconds go by after the first packet, for which it waits two seconds at most.
  @inline(__always)
  private mutating func awaitTraffic(_ burst: (inout FrontLoop) throws -> Int) throws {
    try drain()
    let limit = monotonic_nanoseconds() + 2_000_000_000
    while try burst(&self) == 0 && monotonic_nanoseconds() < limit {}
    let warm = Stopwatch()
    while warm.elapsed < 50_000_000 { _ = try burst(&self) }
  }

  // MARK: One burst

  /// - Returns: packets that the ring took.
  @inline(__always)
  private mutating func make() throws -> Int {
    try complete()
    while sending.count < burstSize, let tag = free.popLast() {
      let slot = ownSlot(tag)
      let bytes = packets + Int(slot.position)
      for offset in stride(from: 0, to: 48, by: 8) { relaxed_store64(bytes + offset, 0x5a5a) }
      sending.append(slot)
    }
    let before = sending.count
    try pair.transmit(&sending)
    return before &- sending.count
  }

  @inline(__always)
  private func ownSlot(_ tag: UInt16) -> Descriptor {
    // First lines apart from each other in a first-level cache, as those of a pool of buffers are. The memory is this
    // process's alone, as testpmd's is: the driver may write its header before the packet.
    Descriptor(
      segment: UInt32(Self.partBytes >> 10) &+ UInt32(tag) &* 4,
      offset: 64 &+ UInt32(tag & 31) &* 64, length: UInt32(truncatingIfNeeded: packetBytes),
      flags: .headroom, tag: tag)
  }

  @inline(__always)
  private mutating func take() throws -> Int {
    try pair.receive(into: &received)
    let count = received.count
    if count == 0 { return 0 }
    var packets = 0
    for index in 0..<count {
      let slot = received[index]
      if !slot.flags.contains(.more) { packets &+= 1 }
      if !slot.flags.contains(.offload) { ledger.reclaim(slot.segment) }
    }
    received.removeAll()
    try refill()
    return packets
  }

  /// Received segments are the instance's until the device has sent them: their tag is their number.
  @inline(__always)
  private mutating func echo() throws -> Int {
    try complete()
    try pair.receive(into: &received)
    let count = received.count
    for index in 0..<count {
      var slot = received[index]
      ledger.give(slot.segment)
      // Received segments are numbered from 0x8000 on, own packets from 0.
      slot.tag = UInt16(truncatingIfNeeded: slot.segment &>> 1 | 0x8000)
      slot.flags = []
      sending.append(slot)
    }
    received.removeAll()
    if !sending.isEmpty { try pair.transmit(&sending) }
    // What the ring did not take is dropped, as testpmd does.
    for index in 0..<sending.count { try ledger.takeBack(sending[index].segment) }
    let dropped = sending.count
    sending.removeAll()
    if count > 0 { try refill() }
    return count &- dropped
  }

  @inline(__always)
  private mutating func complete() throws {
    try pair.completeTransmit(into: &completed)
    for index in 0..<completed.count {
      let tag = completed[index].tag
      if tag & 0x8000 != 0 {
        try ledger.takeBack(UInt32(tag & 0x7fff) &* 2)
      } else {
        free.append(tag)
      }
    }
    completed.removeAll()
  }

  @inline(__always)
  private mutating func refill() throws {
    let room = min(pair.receiveRoom, posts.capacity)
    if room < 16 { return }
    ledger.lend(upTo: room, into: &posts)
    try pair.postReceive(&posts)
    for index in 0..<posts.count { ledger.reclaim(posts[index].segment) }
    posts.removeAll()
  }

  /// What is still on its way from the run before comes in and is dropped; what was not sent is forgotten.
  private mutating func drain() throws {
    for index in 0..<sending.count where sending[index].tag & 0x8000 == 0 {
      free.append(sending[index].tag)
    }
    sending.removeAll()
    let watch = Stopwatch()
    while watch.elapsed < 10_000_000 {
      _ = try take()
      try complete()
    }
  }
}
