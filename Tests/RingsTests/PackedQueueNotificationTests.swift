import CLinux
import Memory
import Testing
import Virtio

@testable import Rings

/// virtio 1.2, 2.8.10.
@Suite struct PackedQueueNotificationTests {
  @Test func theDeviceIsNotifiedOnceABurstAndWhenItAsks() {
    let device = PackedScriptedDevice(size: 8)
    var queue = device.queue()
    var asked: [Bool] = []
    asked.append(queue.shouldNotify())
    queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
    queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
    queue.publish()
    asked.append(queue.shouldNotify())
    asked.append(queue.shouldNotify())
    device.setDeviceEvents(UInt32(PackedRing.eventsOff) << 16)
    queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
    queue.publish()
    asked.append(queue.shouldNotify())
    // Without the event index a descriptor that the device waits for means nothing.
    device.setDeviceEvents(UInt32(PackedRing.eventAtDescriptor) << 16 | 7)
    queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
    queue.publish()
    asked.append(queue.shouldNotify())
    #expect(asked == [false, true, false, false, true])
  }

  /// A device that names a descriptor, goes on beyond it, and sleeps.
  @Test func aDeviceThatWaitsForWhatItHasUsedIsRemindedOnce() throws {
    for size in [5, 8] {
      let device = PackedScriptedDevice(size: size)
      var queue = device.queue(eventIndex: true)
      for _ in 0..<4 * size {
        let event =
          UInt32(device.place) | (device.wrap ? 0x8000 : 0)
          | UInt32(PackedRing.eventAtDescriptor) << 16
        var asked: [Bool] = []
        device.setDeviceEvents(event)
        let start = device.place
        for _ in 0..<3 { queue.addWritable(iova: 0, byteCount: 1, cookie: 0) }
        queue.publish()
        _ = queue.shouldNotify()
        // It has not come by yet.
        asked.append(queue.shouldRemind())
        device.use(device.descriptor(start).id, length: 1)
        _ = queue.takeAll()
        asked.append(queue.shouldRemind())
        asked.append(queue.shouldRemind())
        device.use(device.descriptor(start + 1).id, length: 1)
        _ = queue.takeAll()
        asked.append(queue.shouldRemind())
        device.setDeviceEvents(UInt32(PackedRing.eventsOff) << 16)
        asked.append(queue.shouldRemind())
        device.use(device.descriptor(start + 2).id, length: 1)
        _ = queue.takeAll()
        // Nothing is left to wait for.
        device.setDeviceEvents(event)
        asked.append(queue.shouldRemind())
        #expect(asked == [false, true, false, true, false, false])
      }
    }
  }

  /// Every descriptor of every round, waited for or not, with bursts of one to three in a ring of 5.
  @Test func theDescriptorThatTheDeviceWaitsForDecides() throws {
    let device = PackedScriptedDevice(size: 5)
    var queue = device.queue(eventIndex: true)
    for round in 0..<60 {
      let count = 1 + round % 3
      let (start, wrap) = (device.place, device.wrap)
      let wanted = round / 3 % 5
      // The descriptor `wanted` places on from the first of this burst.
      let place = (start + wanted) % 5
      let placeWrap = wrap != (start + wanted >= 5)
      device.setDeviceEvents(
        UInt32(place) | (placeWrap ? 0x8000 : 0) | UInt32(PackedRing.eventAtDescriptor) << 16)
      for _ in 0..<count { queue.addWritable(iova: 0, byteCount: 1, cookie: 0) }
      queue.publish()
      let says = queue.shouldNotify()
      #expect(says == (wanted < count))
      for index in 0..<count { device.use(device.descriptor(start + index).id, length: 1) }
      let (used, _) = queue.takeAll()
      #expect(used.count == count)
    }
  }

  @Test func armingNoticesWhatCameMeanwhile() throws {
    for eventIndex in [false, true] {
      let device = PackedScriptedDevice(size: 3)
      var queue = device.queue(eventIndex: eventIndex)
      for _ in 0..<7 {
        queue.addWritable(iova: 0, byteCount: 1, cookie: 0)
        queue.publish()
        let quiet = queue.arm()
        #expect(quiet)
        let event =
          UInt32(device.place) | (device.wrap ? 0x8000 : 0)
          | UInt32(PackedRing.eventAtDescriptor) << 16
        #expect(device.driverEvents == (eventIndex ? event : 0))
        queue.disarm()
        #expect(device.driverEvents == UInt32(PackedRing.eventsOff) << 16)
        device.use(device.descriptor(device.place).id, length: 1)
        let late = queue.arm()
        #expect(!late)
        _ = try queue.takeUsed()
      }
    }
  }
}
