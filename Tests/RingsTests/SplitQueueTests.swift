import CLinux
import Memory
import Testing
import Virtio

@testable import Rings

/// The device's side of a ring, played by a test: it writes what it likes.
final class ScriptedDevice {
  let memory: UnsafeMutableRawPointer
  let range: DMARange
  let size: Int
  private var usedIndex: UInt16 = 0

  init(size: Int) {
    self.size = size
    let byteCount = SplitQueue<AnyOrder>.byteCount(size: size)
    memory = .allocate(byteCount: byteCount, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    range = DMARange(address: memory, iova: 0x10000, byteCount: byteCount)
  }

  deinit { memory.deallocate() }

  func queue(eventIndex: Bool = false) -> SplitQueue<AnyOrder> {
    SplitQueue(memory: range, size: size, usesEventIndex: eventIndex)
  }
  func inOrderQueue() -> SplitQueue<InOrder> {
    SplitQueue(memory: range, size: size, usesEventIndex: true)
  }

  private var available: UnsafeMutableRawPointer { memory + size * 16 }
  private var used: UnsafeMutableRawPointer {
    memory + (size * 16 + 6 + 2 * size + 127) / 128 * 128
  }

  var availableIndex: UInt16 { available.load(fromByteOffset: 2, as: UInt16.self) }
  func head(_ index: UInt16) -> UInt16 {
    available.load(fromByteOffset: 4 + Int(index) % size * 2, as: UInt16.self)
  }
  func descriptor(_ index: Int) -> (iova: UInt64, length: UInt32, flags: UInt16, next: UInt16) {
    let at = memory + index * 16
    return (
      at.load(as: UInt64.self), at.load(fromByteOffset: 8, as: UInt32.self),
      at.load(fromByteOffset: 12, as: UInt16.self), at.load(fromByteOffset: 14, as: UInt16.self)
    )
  }

  func use(_ id: UInt32, length: UInt32) {
    let element = used + 4 + Int(usedIndex) % size * 8
    element.storeBytes(of: id, as: UInt32.self)
    element.storeBytes(of: length, toByteOffset: 4, as: UInt32.self)
    usedIndex &+= 1
    setUsedIndex(usedIndex)
  }

  /// With in-order: one element for several chains.
  func useBatch(last id: UInt32, count: UInt16, length: UInt32) {
    use(id, length: length)
    usedIndex &+= count - 1
    setUsedIndex(usedIndex)
  }

  func setUsedIndex(_ index: UInt16) {
    used.storeBytes(of: index, toByteOffset: 2, as: UInt16.self)
  }
  func setNoNotify(_ on: Bool) { used.storeBytes(of: on ? 1 : 0, as: UInt16.self) }
  func setAvailableEvent(_ index: UInt16) {
    used.storeBytes(of: index, toByteOffset: 4 + size * 8, as: UInt16.self)
  }
  var usedEvent: UInt16 { available.load(fromByteOffset: 4 + size * 2, as: UInt16.self) }
  var availableFlags: UInt16 { available.load(as: UInt16.self) }
}

@Suite struct SplitQueueTests {
  @Test(arguments: [1, 2, 256, 32768]) func buffersGoRoundPastTheIndexWrap(size: Int) throws {
    let device = ScriptedDevice(size: size)
    var queue = device.queue()
    var expected: UInt64 = 0
    // More than 65536 rounds: the indices wrap, which is legal.
    for round in 0..<(70_000 / min(size, 100)) {
      let count = min(size, 100)
      for index in 0..<count {
        queue.addWritable(
          iova: 0x1000, byteCount: 100, cookie: UInt64(round * count + index))
      }
      queue.publish()
      for index in 0..<count {
        let head = device.head(device.availableIndex &- UInt16(count) &+ UInt16(index))
        device.use(UInt32(head), length: UInt32(index % 101))
      }
      for index in 0..<count {
        let (cookie, byteCount) = try #require(try queue.takeUsed())
        #expect(cookie == expected && byteCount == UInt32(index % 101))
        expected += 1
      }
      let room = queue.room
      #expect(room == size)
    }
  }

  @Test func chainsAreWhatTheSpecificationSays() {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    var chain = queue.beginChain(iova: 0x100, byteCount: 12)
    queue.extend(&chain, iova: 0x200, byteCount: 20, writable: false)
    queue.extend(&chain, iova: 0x300, byteCount: 30, writable: true)
    queue.finish(chain, slot: Descriptor(segment: 9))
    #expect(device.availableIndex == 0)
    queue.publish()
    #expect(device.availableIndex == 1)
    let first = device.descriptor(Int(device.head(0)))
    let second = device.descriptor(Int(first.next))
    let third = device.descriptor(Int(second.next))
    #expect(first.iova == 0x100 && first.length == 12 && first.flags == SplitRing.next)
    #expect(second.iova == 0x200 && second.length == 20 && second.flags == SplitRing.next)
    #expect(third.iova == 0x300 && third.length == 30 && third.flags == SplitRing.write)
    let room = queue.room
    #expect(room == 5)
  }

  /// A descriptor that gains its link is written anew: what the device has put there meanwhile is not read back.
  @Test func flagsThatTheDeviceRewritesAreNotReadBack() {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    var chain = queue.beginChain(iova: 0x100, byteCount: 12)
    for index in 0..<8 {
      (device.memory + index * 16 + 12).storeBytes(of: 0xffff, as: UInt16.self)
    }
    queue.extend(&chain, iova: 0x200, byteCount: 20, writable: false)
    queue.finish(chain, slot: Descriptor(segment: 9))
    queue.publish()
    let first = device.descriptor(Int(device.head(0)))
    #expect(first.flags == SplitRing.next)
    let second = device.descriptor(Int(first.next))
    #expect(second.flags == 0 && second.length == 20)
  }

  /// What a device may do wrong with one buffer of 100 bytes outstanding in a ring of 8, and a chain of two.
  @Test(
    arguments: [
      (8, 0), (0xffff_ffff, 0), (0x10000, 0), (5, 0),
    ] as [(UInt32, UInt32)]) func idsThatAreNotOutstandingBreakTheQueue(id: UInt32, length: UInt32)
    throws
  {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    queue.addWritable(iova: 0x1000, byteCount: 100, cookie: 1)
    queue.publish()
    device.use(id, length: length)
    let error = failure(&queue)
    #expect(error == (id >= 8 ? .idOutOfRange(id: id, size: 8) : .idNotOutstanding(id: id)))
    // Broken for good.
    var again: RingError?
    do throws(RingError) { _ = try queue.takeUsed() } catch { again = error }
    #expect(again == error)
  }

  @Test func anIdIsTakenOnce() throws {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    queue.addWritable(iova: 0x1000, byteCount: 100, cookie: 1)
    queue.addWritable(iova: 0x2000, byteCount: 100, cookie: 2)
    queue.publish()
    let head = UInt32(device.head(0))
    device.use(head, length: 1)
    device.use(head, length: 1)
    let first = try queue.takeUsed()
    #expect(first?.cookie == 1)
    let error = failure(&queue)
    #expect(error == .idNotOutstanding(id: head))
  }

  @Test func theMiddleOfAChainIsNoHead() throws {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    var chain = queue.beginChain(iova: 0x100, byteCount: 12)
    queue.extend(&chain, iova: 0x200, byteCount: 20, writable: false)
    queue.finish(chain, slot: Descriptor(segment: 1))
    queue.publish()
    let middle = UInt32(device.descriptor(Int(device.head(0))).next)
    device.use(middle, length: 0)
    let error = failure(&queue)
    #expect(error == .idNotOutstanding(id: middle))
  }

  @Test(arguments: [101, 0xffff_ffff] as [UInt32]) func lengthsBeyondTheBufferBreakTheQueue(
    length: UInt32
  ) throws {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    queue.addWritable(iova: 0x1000, byteCount: 100, cookie: 1)
    queue.publish()
    let head = UInt32(device.head(0))
    device.use(head, length: length)
    let error = failure(&queue)
    #expect(error == .lengthBeyondBuffer(id: head, length: length, posted: 100))
  }

  @Test(arguments: [2, 9, 0xffff, 0x8000] as [UInt16]) func indicesThatJumpBreakTheQueue(
    to index: UInt16
  ) {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    queue.addWritable(iova: 0x1000, byteCount: 100, cookie: 1)
    queue.publish()
    device.setUsedIndex(index)
    var seen: RingError?
    do throws(RingError) { _ = try queue.takeUsed() } catch { seen = error }
    #expect(seen == .indexJump(from: 0, to: index, outstanding: 1))
  }

  @Test func whatASentChainIsSaidToHoldIsIgnored() throws {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    let chain = queue.beginChain(iova: 0x100, byteCount: 12)
    queue.finish(chain, slot: Descriptor(segment: 3))
    queue.publish()
    device.use(UInt32(device.head(0)), length: 0xffff_ffff)
    let used = try queue.takeUsed()
    #expect(used?.cookie == 3 && used?.byteCount == 0)
  }

  @Test func descriptorsThatTheDeviceRewritesDoNotMatter() throws {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    var chain = queue.beginChain(iova: 0x100, byteCount: 12)
    queue.extend(&chain, iova: 0x200, byteCount: 20, writable: false)
    queue.extend(&chain, iova: 0x300, byteCount: 20, writable: false)
    queue.finish(chain, slot: Descriptor(segment: 3))
    queue.publish()
    let head = device.head(0)
    // Loops, lengths and links of the device's own.
    for index in 0..<8 {
      (device.memory + index * 16).storeBytes(of: UInt64.max, as: UInt64.self)
      (device.memory + index * 16).storeBytes(of: UInt64.max, toByteOffset: 8, as: UInt64.self)
    }
    device.use(UInt32(head), length: 0)
    _ = try queue.takeUsed()
    let room = queue.room
    #expect(room == 8)
    // All eight can be used again, each once.
    for index in 0..<8 { queue.addWritable(iova: 0, byteCount: 1, cookie: UInt64(index)) }
    queue.publish()
    #expect(Set((1..<9).map { device.head(UInt16($0)) }).count == 8)
  }

  @Test func theDeviceIsNotifiedOnceABurstAndWhenItAsks() {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    var asked: [Bool] = []
    asked.append(queue.shouldNotify())
    queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
    queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
    queue.publish()
    asked.append(queue.shouldNotify())
    asked.append(queue.shouldNotify())
    device.setNoNotify(true)
    queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
    queue.publish()
    asked.append(queue.shouldNotify())
    #expect(asked == [false, true, false, false])
  }

  @Test func theEventIndexDecidesWhereItWasAgreed() {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue(eventIndex: true)
    #expect(device.availableFlags == 0)
    var asked: [Bool] = []
    for (event, wanted) in [(0, true), (5, false), (2, true), (3, true), (0, false)]
      as [(UInt16, Bool)]
    {
      device.setAvailableEvent(event)
      // Without the event index this would say no.
      device.setNoNotify(true)
      queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
      queue.publish()
      let says = queue.shouldNotify()
      asked.append(says)
      #expect(says == wanted)
    }
    #expect(asked.count == 5)
  }

  @Test func armingNoticesWhatCameMeanwhile() {
    for eventIndex in [false, true] {
      let device = ScriptedDevice(size: 8)
      var queue = device.queue(eventIndex: eventIndex)
      queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
      queue.publish()
      let quiet = queue.arm()
      #expect(quiet)
      #expect(eventIndex ? device.usedEvent == 0 : device.availableFlags == 0)
      queue.disarm()
      #expect(eventIndex ? device.usedEvent == 0xffff : device.availableFlags == 1)
      device.use(UInt32(device.head(0)), length: 1)
      let late = queue.arm()
      #expect(!late)
    }
  }

  @Test func whatTheDeviceHeldComesBackAfterAReset() {
    let device = ScriptedDevice(size: 8)
    var queue = device.queue()
    for cookie in 0..<3 { queue.addWritable(iova: 0, byteCount: 1, cookie: UInt64(cookie)) }
    queue.publish()
    let cookies = queue.takeAllOutstanding()
    #expect(cookies.sorted() == [0, 1, 2])
    let room = queue.room
    #expect(room == 8)
  }

  // MARK: In order (2.7.9)

  @Test func descriptorsAreUsedInRingOrder() throws {
    let device = ScriptedDevice(size: 8)
    var queue = device.inOrderQueue()
    for round in 0..<20 {
      queue.addReadable([UInt64(round)])
      queue.addWritable(iova: 0x1000, byteCount: 50, cookie: UInt64(100 + round))
      queue.publish()
      let first = UInt16(round * 3 % 8)
      #expect(device.head(UInt16(2 * round)) == first)
      let header = device.descriptor(Int(first))
      #expect(header.iova == 0x5000 && header.length == 12 && header.flags == SplitRing.next)
      #expect(header.next == (first + 1) % 8)
      #expect(device.head(UInt16(2 * round + 1)) == (first + 2) % 8)
      device.use(UInt32(first), length: 0)
      device.use(UInt32((first + 2) % 8), length: 20)
      let (used, error) = queue.takeAll()
      #expect(used.map(\.cookie) == [UInt64(round), UInt64(100 + round)] && error == nil)
      #expect(used.map(\.byteCount) == [0, 20])
    }
    let room = queue.room
    #expect(room == 8)
  }

  @Test func oneElementStandsForABatch() {
    let device = ScriptedDevice(size: 8)
    var queue = device.inOrderQueue()
    for round in 0..<9 {
      for cookie in 0..<4 { queue.addWritable(iova: 0, byteCount: 100, cookie: UInt64(cookie)) }
      queue.publish()
      // The first one by itself, then three at once: two of them are full.
      let base = round * 4
      device.use(UInt32(base % 8), length: 10)
      device.useBatch(last: UInt32((base + 3) % 8), count: 3, length: 30)
      let one = try? queue.takeUsed()
      #expect(one?.cookie == 0 && one?.byteCount == 10)
      let (used, error) = queue.takeAll()
      #expect(used.map(\.cookie) == [1, 2, 3] && used.map(\.byteCount) == [100, 100, 30])
      #expect(error == nil)
    }
  }

  /// Of three buffers in a ring of 8, the device says that it has used one, and names a later one; names what it does not
  /// hold; or what does not exist.
  @Test(
    arguments: [
      (1, .outOfOrder(id: 1, expected: 0)), (2, .outOfOrder(id: 2, expected: 0)),
      (3, .idNotOutstanding(id: 3)), (8, .idOutOfRange(id: 8, size: 8)),
    ] as [(UInt32, RingError)]) func batchesBeyondTheIndexBreakTheQueue(
      id: UInt32, error: RingError
    )
  {
    let device = ScriptedDevice(size: 8)
    var queue = device.inOrderQueue()
    for cookie in 0..<3 { queue.addWritable(iova: 0, byteCount: 100, cookie: UInt64(cookie)) }
    queue.publish()
    device.use(id, length: 5)
    let (used, seen) = queue.takeAll()
    #expect(used.isEmpty && seen == error)
    let cookies = queue.takeAllOutstanding()
    #expect(cookies.sorted() == [0, 1, 2])
  }

  @Test func aBatchWithAnImpossibleLengthBreaksTheQueue() {
    let device = ScriptedDevice(size: 8)
    var queue = device.inOrderQueue()
    for cookie in 0..<3 { queue.addWritable(iova: 0, byteCount: 100, cookie: UInt64(cookie)) }
    queue.publish()
    device.useBatch(last: 2, count: 3, length: 101)
    let (used, error) = queue.takeAll()
    #expect(used.isEmpty && error == .lengthBeyondBuffer(id: 2, length: 101, posted: 100))
  }

  private func failure(_ queue: inout SplitQueue<AnyOrder>) -> RingError? {
    do throws(RingError) {
      _ = try queue.takeUsed()
      return nil
    } catch {
      return error
    }
  }
}
