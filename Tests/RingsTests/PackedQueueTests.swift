import CLinux
import Memory
import Testing
import Virtio

@testable import Rings

@Suite struct PackedQueueTests {
  @Test(arguments: [2, 3, 7, 255, 256, 1000, 32768]) func buffersGoRoundManyTimes(size: Int) throws
  {
    let device = PackedScriptedDevice(size: size)
    var queue = device.queue()
    var expected: UInt64 = 0
    for round in 0..<(20_000 / min(size, 100)) {
      let count = min(size, 100)
      let (start, wrap) = (device.place, device.wrap)
      var ids: [UInt16] = []
      for index in 0..<count {
        queue.addWritable(iova: 0x1000, byteCount: 100, cookie: UInt64(round * count + index))
      }
      #expect(!device.isAvailable(start, wrap: wrap))
      queue.publish()
      for index in 0..<count {
        let isNextRound = start + index >= size
        #expect(device.isAvailable(start + index, wrap: wrap != isNextRound))
        let seen = device.descriptor(start + index)
        #expect(seen.iova == 0x1000 && seen.length == 100 && seen.flags & 7 == PackedRing.write)
        ids.append(seen.id)
      }
      for index in 0..<count { device.use(ids[index], length: UInt32(index % 101)) }
      for index in 0..<count {
        let (cookie, byteCount) = try #require(try queue.takeUsed())
        #expect(cookie == expected && byteCount == UInt32(index % 101))
        expected += 1
      }
      let (more, room) = (try queue.takeUsed(), queue.room)
      #expect(more == nil && room == size)
    }
  }

  @Test func buffersComeBackInAnyOrder() throws {
    let device = PackedScriptedDevice(size: 5)
    var queue = device.queue()
    for _ in 0..<30 {
      for cookie in 0..<5 { queue.addWritable(iova: 0, byteCount: 10, cookie: UInt64(cookie)) }
      queue.publish()
      let ids = (0..<5).map { device.descriptor(device.place + $0).id }
      #expect(Set(ids).count == 5)
      for index in [3, 0, 4, 2, 1] { device.use(ids[index], length: UInt32(index)) }
      let (used, error) = queue.takeAll()
      #expect(used.map(\.cookie) == [3, 0, 4, 2, 1] && error == nil)
    }
  }

  @Test func chainsAreWhatTheSpecificationSays() throws {
    let device = PackedScriptedDevice(size: 5)
    var queue = device.queue()
    // Each round begins two places further, so that chains lie across the end of the ring too.
    for round in 0..<15 {
      let (start, wrap) = (device.place, device.wrap)
      var chain = queue.beginChain(iova: 0x100, byteCount: 12)
      queue.extend(&chain, iova: 0x200, byteCount: 20, writable: false)
      queue.extend(&chain, iova: 0x300, byteCount: 30, writable: true)
      queue.finish(chain, slot: Descriptor(segment: UInt32(round)))
      #expect(!device.isAvailable(start, wrap: wrap))
      queue.publish()
      for index in 0..<3 {
        #expect(device.isAvailable(start + index, wrap: wrap != (start + index >= 5)))
      }
      let pieces = (0..<3).map { device.descriptor(start + $0) }
      #expect(pieces.map(\.iova) == [0x100, 0x200, 0x300])
      #expect(pieces.map(\.length) == [12, 20, 30])
      #expect(
        pieces.map { $0.flags & 7 } == [PackedRing.next, PackedRing.next, PackedRing.write])
      device.use(pieces[2].id, length: 30, skipping: 3)
      let used = try queue.takeUsed()
      #expect(used?.cookie == UInt64(round) && used?.byteCount == 30)
      // One alone moves the start.
      queue.addReadable([77])
      queue.publish()
      let header = device.descriptor(device.place)
      #expect(header.iova == 0x5000 && header.length == 12 && header.flags & 7 == PackedRing.next)
      let payload = device.descriptor(device.place + 1)
      #expect(payload.iova == 77 * 1024 && payload.length == 100 && payload.flags & 7 == 0)
      device.use(payload.id, length: 0, skipping: 2)
      let sent = try queue.takeUsed()
      #expect(sent?.cookie == 77 && sent?.byteCount == 0)
    }
    let room = queue.room
    #expect(room == 5)
  }

  @Test func indirectTablesAreWhatTheSpecificationSays() {
    let device = PackedScriptedDevice(size: 4)
    var queue = device.queue()
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 32, alignment: 16)
    defer { memory.deallocate() }
    let table = DMARange(address: memory, iova: 0x9000, byteCount: 32)
    for entry in 0..<2 {
      PackedQueue<AnyOrder>.write(
        entry, of: 2, in: table, iova: UInt64(0x100 + entry), byteCount: 10)
    }
    queue.addIndirect(table, slot: Descriptor(segment: 4))
    queue.publish()
    let seen = device.descriptor(0)
    #expect(seen.iova == 0x9000 && seen.length == 32 && seen.flags & 7 == PackedRing.indirect)
    for entry in 0..<2 {
      #expect(memory.load(fromByteOffset: entry * 16, as: UInt64.self) == UInt64(0x100 + entry))
      // 2.8.19: no flag in an entry.
      #expect(memory.load(fromByteOffset: entry * 16 + 8, as: UInt64.self) == 10)
    }
  }

  /// What a device may name with one buffer of 100 bytes outstanding in a ring of 7.
  @Test(arguments: [7, 0xffff, 5] as [UInt16]) func idsThatAreNotOutstandingBreakTheQueue(
    id: UInt16
  ) {
    let device = PackedScriptedDevice(size: 7)
    var queue = device.queue()
    queue.addWritable(iova: 0x1000, byteCount: 100, cookie: 1)
    queue.publish()
    device.use(id, length: 0)
    let (used, error) = queue.takeAll()
    #expect(used.isEmpty)
    #expect(
      error
        == (id >= 7
          ? .idOutOfRange(id: UInt32(id), size: 7) : .idNotOutstanding(id: UInt32(id))))
    // Broken for good.
    let (again, isBroken) = (queue.takeAll(), queue.isBroken)
    #expect(again.error == error && again.used.isEmpty && isBroken)
  }

  @Test func anIdIsTakenOnce() {
    let device = PackedScriptedDevice(size: 8)
    var queue = device.queue()
    queue.addWritable(iova: 0x1000, byteCount: 100, cookie: 1)
    queue.addWritable(iova: 0x2000, byteCount: 100, cookie: 2)
    queue.publish()
    let id = device.descriptor(0).id
    device.use(id, length: 1)
    device.use(id, length: 1)
    // What came before the violation is handed out, also by one call.
    var burst = Burst(capacity: 8)
    var error: RingError?
    do throws(RingError) { try queue.takeUsed(into: &burst, limit: 8) } catch let thrown {
      error = thrown
    }
    let (count, cookie) = (burst.count, burst[0].segment)
    #expect(count == 1 && cookie == 1 && error == nil)
    let (used, thrown) = queue.takeAll()
    #expect(used.isEmpty && thrown == .idNotOutstanding(id: UInt32(id)))
    let left = queue.takeAllOutstanding()
    #expect(left == [2])
  }

  @Test(arguments: [101, 0xffff_ffff] as [UInt32]) func lengthsBeyondTheBufferBreakTheQueue(
    length: UInt32
  ) {
    let device = PackedScriptedDevice(size: 8)
    var queue = device.queue()
    queue.addWritable(iova: 0x1000, byteCount: 100, cookie: 1)
    queue.publish()
    let id = device.descriptor(0).id
    device.use(id, length: length)
    let (used, error) = queue.takeAll()
    #expect(used.isEmpty)
    #expect(error == .lengthBeyondBuffer(id: UInt32(id), length: length, posted: 100))
  }

  @Test func whatASentChainIsSaidToHoldIsIgnored() throws {
    let device = PackedScriptedDevice(size: 8)
    var queue = device.queue()
    queue.addReadable([3])
    queue.publish()
    device.use(device.descriptor(1).id, length: 0xffff_ffff, skipping: 2, writes: false)
    let used = try queue.takeUsed()
    #expect(used?.cookie == 3 && used?.byteCount == 0)
  }

  /// Marks that are not those of a used descriptor in this round mean nothing, whatever they are and however often they
  /// change.
  @Test func flagsThatNeverSettleAreNotBelieved() throws {
    let device = PackedScriptedDevice(size: 3)
    var queue = device.queue()
    for round in 0..<10 {
      queue.addWritable(iova: 0x1000, byteCount: 100, cookie: UInt64(round))
      queue.publish()
      let id = device.descriptor(device.place).id
      let used = PackedRing.available | PackedRing.used
      let wrong =
        [0x7f7f, 0, PackedRing.used, PackedRing.available, used].filter {
          $0 & used != (device.wrap ? used : 0)
        }
      for flags in wrong + wrong {
        device.setFlags(device.place, flags)
        let taken = try queue.takeUsed()
        #expect(taken == nil)
        let quiet = queue.arm()
        #expect(quiet)
      }
      device.use(id, length: 4)
      let taken = try queue.takeUsed()
      #expect(taken?.cookie == UInt64(round))
    }
  }

  @Test func descriptorsThatTheDeviceRewritesDoNotMatter() throws {
    let device = PackedScriptedDevice(size: 8)
    var queue = device.queue()
    var chain = queue.beginChain(iova: 0x100, byteCount: 12)
    queue.extend(&chain, iova: 0x200, byteCount: 20, writable: false)
    queue.extend(&chain, iova: 0x300, byteCount: 20, writable: false)
    queue.finish(chain, slot: Descriptor(segment: 3))
    queue.publish()
    let id = device.descriptor(2).id
    for index in 1..<8 {
      (device.memory + index * 16).storeBytes(of: UInt64.max, as: UInt64.self)
      (device.memory + index * 16).storeBytes(of: UInt64.max, toByteOffset: 8, as: UInt64.self)
    }
    // Used everywhere behind the place that is due: only that one counts.
    device.use(id, length: 0, skipping: 3)
    _ = try queue.takeUsed()
    let room = queue.room
    #expect(room == 8)
    for index in 3..<8 { device.setFlags(index, 0) }
    for index in 0..<8 { queue.addWritable(iova: 0, byteCount: 1, cookie: UInt64(index)) }
    queue.publish()
    #expect(Set((0..<8).map { device.descriptor($0).id }).count == 8)
  }

  @Test func whatTheDeviceHeldComesBackAfterAReset() throws {
    let device = PackedScriptedDevice(size: 7)
    var queue = device.queue(eventIndex: true)
    for _ in 0..<3 {
      for cookie in 0..<3 { queue.addWritable(iova: 0, byteCount: 1, cookie: UInt64(cookie)) }
      queue.addReadable([5])
      queue.publish()
      device.use(9, length: 0)
      let broken = queue.takeAll().error
      #expect(broken == .idOutOfRange(id: 9, size: 7))
      let cookies = queue.takeAllOutstanding()
      #expect(cookies.sorted() == [0, 1, 2, 5])
      queue.restart()
      device.place = 0
      device.wrap = true
      let (room, isBroken) = (queue.room, queue.isBroken)
      #expect(room == 7 && !isBroken)
      for cookie in 0..<7 { queue.addWritable(iova: 0, byteCount: 1, cookie: UInt64(cookie)) }
      queue.publish()
      let ids = (0..<7).map { device.descriptor($0).id }
      #expect(Set(ids).count == 7)
      for id in ids { device.use(id, length: 1) }
      let (used, error) = queue.takeAll()
      #expect(used.map(\.cookie) == [0, 1, 2, 3, 4, 5, 6] && error == nil)
      let quiet = queue.arm()
      #expect(quiet)
    }
  }
}
