import Driver
import FuzzHarness
import Memory

/// Who holds which segment and which packet, as the one who lent them knows it.
struct Account: ~Copyable {
  static var segmentCount: Int { 24 }
  static var segmentBytes: Int { 2048 }
  static var tagCount: Int { 16 }
  static var placeBytes: Int { 8192 }
  static var arenaByteCount: Int { segmentCount * segmentBytes + tagCount * placeBytes }
  static let frame = DriverFrame.bytes

  /// The slots that the driver was lent; none where it holds none.
  private var lent = [Descriptor?](repeating: nil, count: segmentCount)
  private var free = Array((0..<segmentCount).reversed())
  private var isSent = [Bool](repeating: false, count: tagCount)
  private var nextTag = 0
  private var sentCount = 0

  var nothingIsSent: Bool { sentCount == 0 }
  var isWhole: Bool { free.count == Self.segmentCount && sentCount == 0 }
  var description: String {
    "\(Self.segmentCount - free.count) segments and \(sentCount) packets never came back"
  }

  // MARK: Receive

  mutating func lend(_ limit: Int, _ burst: inout Burst, headerBytes: Int) -> Int {
    burst.removeAll()
    let lead = UInt32(64 - headerBytes) & 63
    while burst.count < limit, let segment = free.popLast() {
      // Those of a driver with a header begin at different offsets.
      let offset = lead + (headerBytes == 0 ? 0 : UInt32(segment & 3) * 64)
      let slot = Descriptor(
        segment: UInt32(segment * Self.segmentBytes / Descriptor.unit), offset: offset,
        length: UInt32(Self.segmentBytes) - offset)
      lent[segment] = slot
      burst.append(slot)
    }
    return burst.count
  }

  /// A segment is the driver's no more.
  private mutating func giveUp(_ segment: UInt32) -> Descriptor {
    let number = Int(segment) * Descriptor.unit / Self.segmentBytes
    guard number < Self.segmentCount, let slot = lent[number], slot.segment == segment else {
      fatalError("segment \(segment) comes back, which the driver does not hold")
    }
    lent[number] = nil
    free.append(number)
    return slot
  }

  /// Whole packets, each in pieces of what was lent, with metadata that fit it.
  mutating func take(_ burst: borrowing Burst) {
    var metadata: Offload?
    var bytes = 0
    for index in 0..<burst.count {
      let slot = burst[index]
      if slot.flags.contains(.offload) {
        require(bytes == 0 && metadata == nil, "metadata inside a packet")
        metadata = Offload(slot)
        require(metadata != nil, "metadata that mean nothing")
        continue
      }
      let known = Descriptor.Flags([.more, .checksumValid])
      require(slot.flags.subtracting(known).rawValue == 0, "flags \(slot.flags.rawValue)")
      let own = giveUp(slot.segment)
      require(
        slot.offset >= own.offset && slot.length > 0
          && slot.offset + slot.length <= own.offset + own.length,
        "\(slot.length) bytes at \(slot.offset) of \(own.length) at \(own.offset)")
      bytes += Int(slot.length)
      if slot.flags.contains(.more) { continue }
      require((14...65553).contains(bytes), "a packet of \(bytes) bytes")
      if let metadata {
        check(metadata, of: bytes)
        require(
          !metadata.needsChecksum || !slot.flags.contains(.checksumValid),
          "a checksum that is valid and missing")
      }
      metadata = nil
      bytes = 0
    }
    require(bytes == 0 && metadata == nil, "a packet without its end")
  }

  private func check(_ metadata: Offload, of bytes: Int) {
    let start = Int(metadata.checksumStart)
    if metadata.needsChecksum {
      let end = start + Int(metadata.checksumOffset) + 2
      require(start >= 14 && end <= bytes, "a checksum from \(start) to \(end) of \(bytes)")
    }
    switch metadata.segmentation {
    case .none: require(metadata.needsChecksum, "metadata that ask for nothing")
    case .tcp4, .tcp6:
      require(metadata.segmentSize > 0, "segments of 0 bytes")
      require(
        Int(metadata.headerLength) <= bytes, "headers of \(metadata.headerLength) of \(bytes)")
      require(
        !metadata.needsChecksum || start + 20 <= bytes, "a TCP header at \(start) of \(bytes)")
      require(bytes >= 54, "\(bytes) bytes to be cut")
    case .udp: fatalError("segmentation that was not agreed")
    }
  }

  mutating func takeBack(_ burst: borrowing Burst) {
    for index in 0..<burst.count { _ = giveUp(burst[index].segment) }
  }

  func bytes(of slot: Descriptor, in arena: DMARange) -> [UInt8] {
    Array(
      UnsafeRawBufferPointer(
        start: arena.address + Int(slot.position), count: Int(slot.length)))
  }

  // MARK: Transmit

  private static func place(_ tag: Int) -> Int {
    (segmentCount * segmentBytes + tag * placeBytes) / Descriptor.unit
  }

  /// Puts packets into the burst: their length, and what is left to the device, by `options`.
  /// - Returns: the first one's tag; the others' follow.
  mutating func fill(_ burst: inout Burst, packets: Int, pieces: Int, _ options: UInt8) -> Int {
    let first = nextTag
    for number in 0..<packets {
      let tag = (first + number) % Self.tagCount
      if isSent[tag] || burst.room < pieces + 1 { break }
      let isLarge = options & 3 == 3
      let length = isLarge ? 4000 : options == 0 ? Self.frame.count : 10 + Int(options)
      if options & 3 >= 2 {
        var metadata = Offload(
          needsChecksum: true, checksumStart: 34, checksumOffset: 16, tag: UInt16(tag))
        if isLarge {
          metadata.segmentation = options & 4 == 0 ? .tcp4 : .tcp6
          metadata.segmentSize = UInt16(options >> 3) * 64
          metadata.headerLength = 54
        }
        burst.append(metadata.slot)
      }
      append(tag, length, pieces, &burst)
    }
    return first
  }

  private func append(_ tag: Int, _ length: Int, _ pieces: Int, _ burst: inout Burst) {
    let hasHeadroom = pieces == 1 && tag % 2 == 1
    var done = 0
    for piece in 0..<pieces {
      let bytes = piece == pieces - 1 ? length - done : length / pieces
      let last: Descriptor.Flags = hasHeadroom ? .headroom : []
      burst.append(
        Descriptor(
          segment: UInt32(Self.place(tag)), offset: UInt32(64 + done + 3 * piece),
          length: UInt32(bytes), flags: piece == pieces - 1 ? last : .more, tag: UInt16(tag)))
      done += bytes
    }
  }

  /// The driver has taken all but what is left in the burst.
  mutating func sent(_ first: Int, _ count: Int, left: borrowing Burst) {
    var isLeft: UInt16 = 0
    for index in 0..<left.count { isLeft |= 1 << left[index].tag }
    for number in 0..<count {
      let tag = (first + number) % Self.tagCount
      if isSent[tag] || isLeft >> UInt16(tag) & 1 != 0 { break }
      isSent[tag] = true
      sentCount += 1
      nextTag = (tag + 1) % Self.tagCount
    }
  }

  mutating func complete(_ burst: borrowing Burst) {
    for index in 0..<burst.count {
      let tag = Int(burst[index].tag)
      require(tag < Self.tagCount && isSent[tag], "packet \(tag) is completed, which is not sent")
      isSent[tag] = false
      sentCount -= 1
    }
  }

  /// In every place lies what begins like TCP over IPv4.
  func prepare(_ arena: DMARange) {
    for tag in 0..<Self.tagCount {
      let at = Self.place(tag) * Descriptor.unit + 64
      arena.store8(8, at: at + 12)
      arena.store8(0x45, at: at + 14)
      arena.store8(6, at: at + 23)
      arena.store8(0x50, at: at + 46)
    }
  }

  /// Into the place of the packet that is sent next.
  func write(_ bytes: [UInt8], to arena: DMARange) {
    let at = Self.place(nextTag) * Descriptor.unit + 64
    bytes.withUnsafeBytes {
      (arena.address + at).copyMemory(from: $0.baseAddress!, byteCount: bytes.count)
    }
  }
}

/// A frame that is recognised by its bytes.
enum DriverFrame {
  static let bytes: [UInt8] =
    [0x52, 0x54, 0x00, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]
    + (14..<64).map { UInt8(truncatingIfNeeded: $0 &* 5) }
}
