import CLinux
import Driver
import Rings
import Testing
import Virtio
import VirtioNet
import VirtioNetDevice

/// What virtio 1.2 asks of a device, broken by one: chapters 2.7 and 2.8. Each violation breaks the queue for good, is
/// named, and hands nothing out twice; a reset mends it.
@Suite struct RingMustTests {
  /// 2.7.8.2, 2.8.22: the id is that of the head of a chain that the driver made available.
  @Test(arguments: formats) func aBufferThatDoesNotExistIsUsed(format: VirtioFeatures) throws {
    for (id, error) in [
      (64, RingError.idOutOfRange(id: 64, size: 64)), (40, .idNotOutstanding(id: 40)),
      (0xffff, .idOutOfRange(id: 0xffff, size: 64)),
    ] as [(UInt32, RingError)] {
      var (rig, queue) = try HostileRig.receiving(format, posted: 16)
      queue.use(id, length: 100)
      #expect(rig.receiveFailure() == .ring(queue: 0, error))
      try rig.recover()
    }
  }

  @Test(arguments: formats) func aBufferIsUsedTwice(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 16)
    let id = queue.due()
    try rig.use(&queue, byteCount: 64)
    let packets = try rig.receive()
    #expect(packets.count == 1)
    queue.use(id, length: 76)
    #expect(rig.receiveFailure() == .ring(queue: 0, .idNotOutstanding(id: id)))
    try rig.recover()
  }

  /// Both in one look: the first is good and is handed out once.
  @Test(arguments: formats) func aBufferIsUsedTwiceAtOnce(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 16)
    let id = queue.due()
    try rig.use(&queue, byteCount: 64)
    queue.use(id, length: 76)
    #expect(rig.receiveFailure() == .ring(queue: 0, .idNotOutstanding(id: id)))
    #expect(rig.statistics().receivedPackets == 1)
    try rig.recover()
  }

  @Test(arguments: [[], .inOrder] as [VirtioFeatures])
  func theMiddleOfAChainIsUsed(format: VirtioFeatures) throws {
    let rig = try HostileRig(format, withheld: .indirectDescriptors)
    try rig.start(ringSize: 64)
    try rig.send([1, 2])
    var queue = try rig.queue(1)
    // Chains of three descriptors; of the first one the one behind its head.
    let head = queue.due()
    let middle = UInt32(truncatingIfNeeded: queue.descriptor(word: Int(head) * 2 + 1) >> 48)
    queue.use(middle, length: 0)
    #expect(rig.completionFailure() == .ring(queue: 1, .idNotOutstanding(id: middle)))
    try rig.recover()
  }

  /// 2.7.8: the used index moves by what was used.
  @Test(arguments: [17, 1000, 0x8000, -1] as [Int], [[], .inOrder] as [VirtioFeatures])
  func theUsedIndexJumps(count: Int, format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 16)
    queue.moveIndex(by: count)
    #expect(
      rig.receiveFailure()
        == .ring(
          queue: 0,
          .indexJump(from: 0, to: UInt16(truncatingIfNeeded: count), outstanding: 16)))
    try rig.recover()
  }

  @Test(arguments: [[], .inOrder] as [VirtioFeatures])
  func theUsedIndexGoesBack(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 16)
    for _ in 0..<4 { try rig.use(&queue, byteCount: 64) }
    let packets = try rig.receive()
    #expect(packets.count == 4)
    queue.moveIndex(by: -2)
    #expect(
      rig.receiveFailure() == .ring(queue: 0, .indexJump(from: 4, to: 2, outstanding: 12)))
    try rig.recover()
  }

  /// 2.7.8.2, 2.8.4: the length is at most what was writable.
  @Test(arguments: formats, [1997, 0xffff, 0xffff_ffff] as [UInt32])
  func moreIsWrittenThanThereIsRoomFor(format: VirtioFeatures, length: UInt32) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 16)
    let id = queue.due()
    queue.use(length: length)
    #expect(
      rig.receiveFailure()
        == .ring(queue: 0, .lengthBeyondBuffer(id: id, length: length, posted: 1996)))
    try rig.recover()
  }

  /// 5.1.6.4.1: a header and a frame at least. The buffers go back to the device and are used again.
  @Test(arguments: formats) func lessIsWrittenThanAHeaderAndAFrame(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 16)
    var errors: UInt64 = 0
    for length in [0, 1, 11, 12, 25] as [UInt32] {
      let buffer = try #require(queue.buffer())
      for byte in 0..<12 { volatile_store8(buffer + byte, byte == 10 ? 1 : 0) }
      queue.use(length: length)
      errors += 1
      let packets = try rig.receive()
      #expect(packets.isEmpty && rig.statistics().receiveErrors == errors)
    }
    try rig.use(&queue, byteCount: 14)
    let packets = try rig.receive()
    #expect(packets.map(\.byteCount) == [14])
    try rig.recover()
  }

  /// 2.7.8.2: of what the device only reads its length says nothing.
  @Test(arguments: formats) func aLengthForWhatIsSentIsIgnored(format: VirtioFeatures) throws {
    let rig = try HostileRig(format)
    try rig.start(ringSize: 64)
    try rig.send([1, 2, 3])
    var queue = try rig.queue(1)
    for length in [1, 64, 0xffff_ffff] as [UInt32] {
      // Indirect: one descriptor each.
      queue.use(length: length)
    }
    let tags = try rig.complete()
    #expect(tags == [1, 2, 3])
    try rig.recover()
  }

  /// 2.7.5, 2.8.5: the driver's descriptors and tables are not the device's to write: what counts is what the driver
  /// knows of them.
  @Test(arguments: formats) func descriptorsAreRewritten(format: VirtioFeatures) throws {
    let rig = try HostileRig(format)
    try rig.start(ringSize: 64)
    try rig.post(16)
    try rig.send([1, 2])
    var receive = try rig.queue(0)
    var transmit = try rig.queue(1)
    let ids = (0..<4).map { receive.due(ahead: $0) }
    let sent = (0..<2).map { transmit.due(ahead: $0) }
    let buffers = try (0..<4).map { try #require(receive.buffer(ahead: $0)) }
    // Addresses of nowhere, lengths, and flags that make loops of chains.
    for word in 0..<128 {
      receive.setDescriptor(word: word, word % 2 == 0 ? 0xdead_0000 : .max >> 17)
      transmit.setDescriptor(word: word, word % 2 == 0 ? 0xdead_0000 : .max >> 17)
    }
    // So are the indirect tables, and the headers of packets that are sent.
    (rig.rings.address + 3 * 4096).initializeMemory(
      as: UInt8.self, repeating: 0xff, count: 64 << 10)
    for (id, buffer) in zip(ids, buffers) {
      for byte in 0..<12 { volatile_store8(buffer + byte, byte == 10 ? 1 : 0) }
      receive.use(id, length: 112)
    }
    for id in sent { transmit.use(id, length: 0) }
    let packets = try rig.receive()
    #expect(packets.map(\.byteCount) == [100, 100, 100, 100])
    let tags = try rig.complete()
    #expect(tags == [1, 2])
    try rig.recover()
  }

  /// 2.8.1: marks of another round, or of none, are no used descriptor.
  @Test(arguments: [.packedRing, [.packedRing, .inOrder]] as [VirtioFeatures])
  func marksOfAnotherRound(format: VirtioFeatures) throws {
    let (rig, queue) = try HostileRig.receiving(format, posted: 16)
    for marks in [0, PackedRing.used, PackedRing.write, PackedRing.available] {
      queue.setMarks(marks, at: 0)
      let packets = try rig.receive()
      #expect(packets.isEmpty && rig.statistics().receiveErrors == 0)
    }
    try rig.recover()
  }

  /// 2.7.9, 2.8.8: with VIRTIO_F_IN_ORDER buffers are used in the order in which they were made available. Naming a later
  /// one stands for all before it, so that only what lies beyond what was used is out of order.
  @Test func buffersAreUsedOutOfOrder() throws {
    var (rig, queue) = try HostileRig.receiving(.inOrder, posted: 16)
    let (first, third) = (queue.due(), queue.due(ahead: 2))
    // One is used, and it is the third.
    queue.use(third, length: 76)
    #expect(
      rig.receiveFailure() == .ring(queue: 0, .outOfOrder(id: third, expected: first)))
    try rig.recover()
  }

  /// 2.7.10, 2.8.10: whatever the device says of notifications, sending and receiving go on.
  @Test(arguments: formats, [0, 1, 0xffff_ffff, 0x3_7fff, 0x2_ffff] as [UInt32])
  func nonsenseAboutNotifications(format: VirtioFeatures, word: UInt32) throws {
    let rig = try HostileRig(format)
    try rig.start(ringSize: 64)
    try rig.post(16)
    for round in 0..<8 {
      let (receive, transmit) = (try rig.queue(0), try rig.queue(1))
      receive.setEvents(word)
      transmit.setEvents(word)
      try rig.send([UInt16(round)])
      try rig.post(1)
      rig.wire.arriving = [frame(round)]
      while rig.device.step() {
        receive.setEvents(word)
        transmit.setEvents(word)
      }
      let packets = try rig.receive()
      #expect(packets.count == 1)
      let tags = try rig.complete()
      #expect(tags == [UInt16(round)])
    }
    try rig.recover()
  }

  /// A device that goes on with buffers that are refused does not keep the driver in one call.
  @Test(arguments: formats) func refusedBuffersWithoutEnd(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, ringSize: 256, posted: 256)
    for _ in 0..<256 { queue.use(length: 3) }
    var calls = 0
    var seen: UInt64 = 0
    while seen < 256 && calls < 100 {
      let packets = try rig.receive()
      #expect(packets.isEmpty)
      let errors = rig.statistics().receiveErrors
      #expect(errors - seen <= 64)
      seen = errors
      calls += 1
    }
    #expect(seen == 256)
    try rig.recover()
  }

  /// 2.6.1: what the device does to a ring while that is reset is of no account.
  @Test(arguments: formats) func aRingIsUsedWhileItIsReset(format: VirtioFeatures) throws {
    var (rig, queue) = try HostileRig.receiving(format, posted: 16)
    rig.registers.writes = { access, _ in
      if HostileRig.isCommon(access, VirtioPCI.Common.queueReset) {
        for _ in 0..<5 { queue.use(length: 100) }
        queue.use(77, length: .max)
      }
      return true
    }
    try rig.resetReceiveRing()
    rig.registers.writes = { _, _ in true }
    try rig.post(16)
    rig.wire.arriving = [frame(1)]
    while rig.device.step() {}
    let packets = try rig.receive()
    #expect(packets.map(\.byteCount) == [64])
    try rig.recover()
  }
}
