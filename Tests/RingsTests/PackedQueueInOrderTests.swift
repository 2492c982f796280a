import CLinux
import Memory
import Testing
import Virtio

@testable import Rings

/// virtio 1.2, 2.8.8.
@Suite struct PackedQueueInOrderTests {
  @Test func oneDescriptorStandsForABatch() throws {
    let device = PackedScriptedDevice(size: 7)
    var queue = device.inOrderQueue()
    for round in 0..<20 {
      let start = device.place
      queue.addWritable(iova: 0, byteCount: 100, cookie: 0)
      queue.addReadable([1])
      for cookie in 2..<5 { queue.addWritable(iova: 0, byteCount: 100, cookie: UInt64(cookie)) }
      queue.publish()
      device.use(device.descriptor(start).id, length: 10)
      // A chain of two and three buffers, of which the last one is not full.
      device.use(device.descriptor(start + 5).id, length: 30, skipping: 5)
      let one = try queue.takeUsed()
      #expect(one?.cookie == 0 && one?.byteCount == 10)
      let two = try queue.takeUsed()
      #expect(two?.cookie == 1 && two?.byteCount == 0)
      let quiet = queue.arm()
      #expect(!quiet, "round \(round): the rest of the batch is there")
      let (used, error) = queue.takeAll()
      #expect(used.map(\.cookie) == [2, 3, 4] && used.map(\.byteCount) == [100, 100, 30])
      #expect(error == nil)
      let room = queue.room
      #expect(room == 7)
    }
  }

  @Test(
    arguments: [
      (1, .idNotOutstanding(id: 1)), (4, .idNotOutstanding(id: 4)),
      (7, .idOutOfRange(id: 7, size: 7)),
    ] as [(UInt16, RingError)]) func batchesThatEndNowhereBreakTheQueue(
      id: UInt16, error: RingError
    )
  {
    let device = PackedScriptedDevice(size: 7)
    var queue = device.inOrderQueue()
    queue.addReadable([0, 1])
    queue.publish()
    // Heads are 0 and 2.
    device.use(id, length: 0)
    let (used, seen) = queue.takeAll()
    #expect(used.isEmpty && seen == error)
    let cookies = queue.takeAllOutstanding()
    #expect(cookies.sorted() == [0, 1])
  }

  @Test func aBatchWithAnImpossibleLengthBreaksTheQueue() {
    let device = PackedScriptedDevice(size: 7)
    var queue = device.inOrderQueue()
    for cookie in 0..<3 { queue.addWritable(iova: 0, byteCount: 100, cookie: UInt64(cookie)) }
    queue.publish()
    device.use(2, length: 101, skipping: 3)
    let (used, error) = queue.takeAll()
    #expect(used.isEmpty && error == .lengthBeyondBuffer(id: 2, length: 101, posted: 100))
  }

  @Test func whatTheDeviceUsesWithoutHoldingItBreaksTheQueue() {
    let device = PackedScriptedDevice(size: 7)
    var queue = device.inOrderQueue()
    device.use(0, length: 0)
    let (used, error) = queue.takeAll()
    #expect(used.isEmpty && error == .idNotOutstanding(id: 0))
  }
}
