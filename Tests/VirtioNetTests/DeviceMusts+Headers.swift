import CLinux
import Driver
import Memory
import Testing
import Virtio
import VirtioNet
import VirtioNetDevice

/// What virtio 1.2 asks of a device, broken by one: 5.1.6, the header before a packet. What does not fit the packet is
/// refused and counted before anybody sees it, and its buffers go back to the device.
@Suite struct HeaderMustTests {
  private static let (needs, valid) = (
    VirtioNetHeader.needsChecksum, VirtioNetHeader.dataValid
  )
  private static let (tcp4, tcp6) = (
    VirtioNetHeader.segmentationTCP4, VirtioNetHeader.segmentationTCP6
  )

  /// What is wrong with it, the header, and the packet's bytes.
  static let refused: [(what: String, header: [UInt8], byteCount: Int)] = [
    (
      "a checksum behind the end",
      HostileRig.header(flags: needs, checksumStart: 90, checksumOffset: 9), 100
    ),
    (
      "a checksum that ends one byte too late",
      HostileRig.header(flags: needs, checksumStart: 34, checksumOffset: 65), 100
    ),
    (
      "a checksum whose place is more than 16 bits say",
      HostileRig.header(flags: needs, checksumStart: 0xffff, checksumOffset: 0xffff), 100
    ),
    (
      "an offset that wraps to a good place",
      HostileRig.header(flags: needs, checksumStart: 34, checksumOffset: 0xfff0), 100
    ),
    (
      "a checksum of the Ethernet header",
      HostileRig.header(flags: needs, checksumStart: 0, checksumOffset: 6), 100
    ),
    (
      "a segmentation that there is not",
      HostileRig.header(flags: needs, segmentation: 2, segmentSize: 100, checksumStart: 34), 100
    ),
    ("a segmentation that was not agreed", HostileRig.header(segmentation: 3, segmentSize: 9), 100),
    ("segmentation 0x77", HostileRig.header(segmentation: 0x77, segmentSize: 9), 100),
    (
      "segments of no bytes",
      HostileRig.header(
        flags: needs, segmentation: tcp4, headerLength: 54, checksumStart: 34, checksumOffset: 16),
      100
    ),
    (
      "segmentation of what has no room for TCP over IPv4",
      HostileRig.header(segmentation: tcp4, segmentSize: 9), 53
    ),
    (
      "segmentation of what has no room for TCP over IPv6",
      HostileRig.header(segmentation: tcp6, segmentSize: 9), 73
    ),
    (
      "a TCP header that ends behind the packet",
      HostileRig.header(
        flags: needs, segmentation: tcp4, segmentSize: 9, checksumStart: 81, checksumOffset: 16),
      100
    ),
    (
      "a TCP checksum that is somewhere else in its header",
      HostileRig.header(
        flags: needs, segmentation: tcp4, segmentSize: 9, checksumStart: 34, checksumOffset: 6),
      100
    ),
  ]

  @Test(arguments: refused.indices, formats)
  func metadataThatDoNotFit(number: Int, format: VirtioFeatures) throws {
    let (what, header, byteCount) = Self.refused[number]
    var (rig, queue) = try HostileRig.receiving(format, posted: 8)
    // As often as there are buffers, and once more: they went back to the device.
    for round in 1...9 as ClosedRange<UInt64> {
      try rig.use(&queue, header, byteCount: byteCount)
      let packets = try rig.receive()
      #expect(packets.isEmpty && rig.statistics().receiveErrors == round, "\(what)")
    }
    try rig.use(&queue, byteCount: 1900)
    let packets = try rig.receive()
    #expect(packets.map(\.byteCount) == [1900])
    try rig.recover()
  }

  /// 5.1.6.4.2: flags that are not known mean nothing, and of a checksum that is both missing and checked it is missing.
  @Test(arguments: formats) func contradictoryFlags(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 8)
    try rig.use(&queue, HostileRig.header(flags: 0xfc), byteCount: 100)
    try rig.use(
      &queue,
      HostileRig.header(
        flags: Self.needs | Self.valid, checksumStart: 34, checksumOffset: 16), byteCount: 100)
    try rig.use(&queue, HostileRig.header(flags: Self.valid | 0x80), byteCount: 100)
    let packets = try rig.receive()
    try #require(packets.count == 3)
    #expect(packets[0].metadata == nil && !packets[0].isChecksumValid)
    #expect(packets[1].metadata?.needsChecksum == true && !packets[1].isChecksumValid)
    #expect(packets[2].metadata == nil && packets[2].isChecksumValid)
    try rig.recover()
  }

  /// 5.1.6.4.2: the header's length is a hint; one that cannot be true does not go on.
  @Test(arguments: [0, 12, 53, 101, 0xffff] as [UInt16]) func headersOfImpossibleLength(
    length: UInt16
  ) throws {
    var (rig, queue) = try HostileRig.receiving(posted: 8)
    try rig.use(
      &queue,
      HostileRig.header(
        flags: Self.needs, segmentation: Self.tcp4, headerLength: length, segmentSize: 20,
        checksumStart: 34, checksumOffset: 16), byteCount: 100)
    let packets = try rig.receive()
    #expect(packets.first?.metadata?.segmentation == .tcp4)
    #expect(packets.first?.metadata?.headerLength == 0)
    try rig.recover()
  }

  /// 5.1.6.4: without the features nothing that a header says goes on.
  @Test(arguments: formats) func offloadsThatWereNotAgreed(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(
      format, withheld: [.checksum, .guestChecksum], posted: 8)
    try rig.use(
      &queue, HostileRig.header(flags: 3, checksumStart: 0xffff, checksumOffset: 9), byteCount: 90)
    try rig.use(&queue, HostileRig.header(segmentation: Self.tcp4, segmentSize: 9), byteCount: 90)
    let packets = try rig.receive()
    #expect(packets.count == 1 && packets.first?.metadata == nil)
    #expect(packets.first?.isChecksumValid == false && rig.statistics().receiveErrors == 1)
    try rig.recover()
  }

  /// 5.1.6.4.1: the number of buffers is 1 or more, and as many as the packet lies in.
  @Test(arguments: formats, [0, 64, 300, 0xffff] as [UInt16])
  func packetsOfImpossiblyManyBuffers(format: VirtioFeatures, buffers: UInt16) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 8)
    for round in 1...9 as ClosedRange<UInt64> {
      try rig.use(&queue, byteCount: 100, buffers: buffers)
      let packets = try rig.receive()
      #expect(packets.isEmpty && rig.statistics().receiveErrors == round)
    }
    try rig.recover()
  }

  /// Those that are missing are waited for without holding anybody up, and what is there comes back.
  @Test(arguments: formats) func buffersThatNeverCome(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 8)
    try rig.use(&queue, byteCount: 100, buffers: 5)
    for _ in 0..<3 {
      let packets = try rig.receive()
      #expect(packets.isEmpty)
    }
    queue.use(length: 50)
    queue.use(length: 50)
    let packets = try rig.receive()
    #expect(packets.isEmpty)
    try rig.recover()
  }

  /// Buffers of a packet that is refused in the end go back to a ring that has been filled up meanwhile.
  @Test(arguments: formats) func aRingThatIsFullWhenBuffersGoBack(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 64)
    try rig.use(&queue, byteCount: 100, buffers: 8)
    for _ in 0..<6 { queue.use(length: 50) }
    var packets = try rig.receive()
    #expect(packets.isEmpty)
    try rig.post(rig.room())
    queue.use(length: 0)
    packets = try rig.receive()
    #expect(packets.isEmpty && rig.statistics().receiveErrors == 1)
    #expect(rig.room() == 0)
    try rig.use(&queue, byteCount: 64)
    packets = try rig.receive()
    #expect(packets.map(\.byteCount) == [64])
    try rig.recover()
  }

  /// One of the further buffers holds nothing.
  @Test(arguments: formats) func anEmptyFurtherBuffer(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 8)
    try rig.use(&queue, byteCount: 100, buffers: 3)
    queue.use(length: 0)
    queue.use(length: 50)
    let packets = try rig.receive()
    #expect(packets.isEmpty && rig.statistics().receiveErrors == 1)
    try rig.recover()
  }

  /// 60 buffers of 1200 bytes are more than any packet has.
  @Test(arguments: formats) func buffersThatAddUpToTooMuch(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 64)
    try rig.use(&queue, byteCount: 1200, buffers: 60)
    for _ in 0..<59 { queue.use(length: 1200) }
    for _ in 0..<3 {
      let packets = try rig.receive()
      #expect(packets.isEmpty)
    }
    #expect(rig.statistics().receiveErrors == 1)
    try rig.use(&queue, byteCount: 64)
    let packets = try rig.receive()
    #expect(packets.map(\.byteCount) == [64])
    try rig.recover()
  }

  /// The header is read once: what the device writes there afterwards changes nothing.
  @Test(arguments: formats) func aHeaderThatChangesAfterItWasRead(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 8)
    let buffer = try #require(queue.buffer())
    try rig.use(
      &queue, HostileRig.header(flags: Self.needs, checksumStart: 34, checksumOffset: 16),
      byteCount: 100, buffers: 2)
    var packets = try rig.receive()
    #expect(packets.isEmpty)
    for byte in 0..<12 { volatile_store8(buffer + byte, 0xff) }
    queue.use(length: 50)
    packets = try rig.receive()
    #expect(packets.map(\.pieces) == [[100, 50]])
    #expect(
      packets.first?.metadata
        == Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 16))
    try rig.recover()
  }
}
