import Driver
import Memory

/// A queue pair with a record of everything that it holds, which every call is held against: no segment and no packet
/// may be lost, be made up, or come back twice.
struct QueueUnderTest<Pair: NetworkQueuePair & ~Copyable>: ~Copyable {
  var pair: Pair
  private let arena: DMARange
  private var ledger: SegmentLedger
  private let segmentBytes: Int
  /// Segments that the driver holds, with the slot that was posted.
  private(set) var posted: [UInt32: Descriptor] = [:]
  private(set) var inFlight: Set<UInt16> = []
  private var nextTag: UInt16 = 0
  private var burst = Burst(capacity: 256)
  private let firstPlace: Int
  /// Bytes around a received piece are compared with what was there before.
  var watchesSurroundings = false

  /// Packets to be sent lie in places of 12 KiB.
  private static var placeUnits: Int { 12 }
  static var places: Int { 256 }
  private static var untouched: UInt8 { 0xa5 }

  /// - Parameter part: which part of the arena is the queue's, of two.
  init(
    _ pair: consuming Pair, arena: DMARange, part: Int, segmentBytes: Int, isColoured: Bool,
    headerBytes: Int
  ) {
    self.pair = pair
    self.arena = arena
    self.segmentBytes = segmentBytes
    let half = arena.byteCount / 2
    let receiveBytes = 2 << 20
    ledger = SegmentLedger(
      firstUnit: UInt32(part * half / Descriptor.unit), byteCount: receiveBytes,
      segmentSize: segmentBytes, isColoured: isColoured, headerBytes: headerBytes)
    firstPlace = (part * half + receiveBytes) / Descriptor.unit
    precondition(half - receiveBytes >= Self.places * Self.placeUnits * Descriptor.unit)
  }

  /// Posts up to `limit` segments, as far as there is room.
  @discardableResult
  mutating func post(_ limit: Int) throws -> Int {
    let wanted = min(limit, pair.receiveRoom, burst.capacity)
    ledger.lend(upTo: wanted, into: &burst)
    let lent = burst.count
    for index in 0..<lent {
      let slot = burst[index]
      posted[slot.segment] = slot
      if watchesSurroundings {
        let start = arena.address + Int(slot.segment) * Descriptor.unit
        start.initializeMemory(as: UInt8.self, repeating: Self.untouched, count: segmentBytes)
      }
    }
    try pair.postReceive(&burst)
    let left = burst.count
    for index in 0..<left {
      posted[burst[index].segment] = nil
      ledger.reclaim(burst[index].segment)
    }
    burst.removeAll()
    try require(left == 0, "postReceive left \(left) segments though receiveRoom said \(wanted)")
    return lent
  }

  /// Takes what has been received, once, and gives its segments back; also what came before an error.
  mutating func receive() throws -> [[UInt8]] {
    var received = Burst(capacity: 128)
    var broken: DriverError?
    do throws(DriverError) {
      try pair.receive(into: &received)
    } catch {
      broken = error
    }
    var frames: [[UInt8]] = []
    var frame: [UInt8] = []
    var metadata: Offload?
    for index in 0..<received.count {
      let slot = received[index]
      if slot.flags.contains(.offload) {
        metadata = Offload(slot)
        try require(metadata != nil && frame.isEmpty, "a packet has metadata that mean nothing")
        continue
      }
      guard let lent = posted.removeValue(forKey: slot.segment) else {
        throw Nonconformance(
          "a received piece names segment \(slot.segment), which the driver does not hold")
      }
      let end = slot.offset + slot.length
      guard slot.offset >= lent.offset, end <= lent.offset + lent.length, slot.length > 0 else {
        throw Nonconformance(
          "a received piece of \(slot.length) bytes at \(slot.offset) lies outside its buffer")
      }
      let start = arena.address + Int(slot.position)
      frame += UnsafeRawBufferPointer(start: start, count: Int(slot.length))
      if watchesSurroundings { try checkSurroundings(lent) }
      ledger.reclaim(slot.segment)
      if slot.flags.contains(.more) { continue }
      if let metadata, metadata.needsChecksum {
        let end = Int(metadata.checksumStart) + Int(metadata.checksumOffset) + 2
        try require(
          end <= frame.count, "a checksum that ends at \(end) in a frame of \(frame.count) bytes")
      }
      frames.append(frame)
      frame = []
      metadata = nil
    }
    try require(frame.isEmpty, "receive handed out a packet without its last piece")
    if let broken { throw broken }
    return frames
  }

  private func checkSurroundings(_ lent: Descriptor) throws {
    let start = arena.address + Int(lent.segment) * Descriptor.unit
    let bytes = UnsafeRawBufferPointer(start: start, count: segmentBytes)
    let before = bytes[..<Int(lent.offset)]
    let after = bytes[Int(lent.offset + lent.length)...]
    try require(
      (Array(before) + Array(after)).allSatisfy { $0 == Self.untouched },
      "bytes outside a posted buffer were written")
  }

  /// Sends frames, each cut into `pieces`.
  /// - Returns: how many the driver took.
  mutating func send(
    _ frames: [[UInt8]], pieces: Int = 1, metadata: Offload? = nil
  ) throws -> Int {
    var tags: [UInt16] = []
    for frame in frames {
      let tag = try freeTag()
      tags.append(tag)
      if var metadata {
        metadata.tag = tag
        burst.append(metadata.slot)
      }
      append(frame, tag: tag, pieces: pieces)
    }
    let admitted = admittedPackets()
    let sent = pair.statistics.sentPackets
    try pair.transmit(&burst)
    try require(
      pair.statistics.sentPackets - sent >= admitted,
      "\(admitted) packets were admitted, and fewer went on the ring")
    var left: Set<UInt16> = []
    var isFirst = true
    for index in 0..<burst.count {
      if isFirst { left.insert(burst[index].tag) }
      isFirst = !burst[index].flags.contains(.more)
    }
    burst.removeAll()
    let taken = tags.filter { !left.contains($0) }
    try require(
      taken == Array(tags.prefix(taken.count)), "transmit left packets before ones that it took")
    inFlight.formUnion(taken)
    return taken.count
  }

  /// Packets at the burst's front that the driver says it would put on its ring, up to one that it would not.
  private mutating func admittedPackets() -> UInt64 {
    var places = 0
    var at = 0
    var count: UInt64 = 0
    while at < burst.count, let last = burst.endOfPacket(from: at),
      pair.admission(of: burst, from: at, through: last, behind: &places) == .admitted
    {
      count += 1
      at = last + 1
    }
    return count
  }

  private mutating func freeTag() throws -> UInt16 {
    for _ in 0..<Self.places {
      defer { nextTag = (nextTag + 1) % UInt16(Self.places) }
      if !inFlight.contains(nextTag) { return nextTag }
    }
    throw Nonconformance("\(Self.places) packets are on their way and none is completed")
  }

  /// The frame's bytes in its place, pieces apart from each other by a few bytes. Before every other frame of one piece
  /// there are bytes for the driver.
  private mutating func append(_ frame: [UInt8], tag: UInt16, pieces: Int) {
    let unit = firstPlace + Int(tag) * Self.placeUnits
    let start = arena.address + unit * Descriptor.unit
    let hasHeadroom = pieces == 1 && tag % 2 == 1
    let last: Descriptor.Flags = hasHeadroom ? .headroom : []
    var done = 0
    var offset = hasHeadroom ? Descriptor.headroom : 0
    for piece in 0..<pieces {
      let left = frame.count - done
      let length = piece == pieces - 1 ? left : max(1, left / (pieces - piece) - piece % 2)
      frame.withUnsafeBytes {
        (start + offset).copyMemory(from: $0.baseAddress! + done, byteCount: length)
      }
      burst.append(
        Descriptor(
          segment: UInt32(unit), offset: UInt32(offset), length: UInt32(length),
          flags: piece == pieces - 1 ? last : .more, tag: tag))
      done += length
      offset += length + 3
    }
  }

  /// Takes completions, once.
  mutating func complete() throws -> Int {
    var done = Burst(capacity: 64)
    try pair.completeTransmit(into: &done)
    for index in 0..<done.count {
      try require(
        inFlight.remove(done[index].tag) != nil,
        "packet \(done[index].tag) was completed twice, or never sent")
    }
    return done.count
  }

  /// After the driver has stopped: everything comes back, each thing once.
  mutating func takeBack() throws {
    var segments = Burst(capacity: 64)
    var packets = Burst(capacity: 64)
    while true {
      pair.takeBack(segments: &segments, packets: &packets)
      if segments.isEmpty && packets.isEmpty { break }
      for index in 0..<segments.count {
        let segment = segments[index].segment
        try require(
          posted.removeValue(forKey: segment) != nil,
          "segment \(segment) came back twice, or was never posted")
        ledger.reclaim(segment)
      }
      for index in 0..<packets.count {
        try require(
          inFlight.remove(packets[index].tag) != nil,
          "packet \(packets[index].tag) came back twice, or was never sent")
      }
      segments.removeAll()
      packets.removeAll()
    }
    try require(posted.isEmpty, "\(posted.count) segments never came back")
    try require(inFlight.isEmpty, "\(inFlight.count) packets never came back")
    let held = ledger.deviceCount + ledger.instanceCount
    try require(held == 0, "\(held) segments are nobody's")
  }
}
