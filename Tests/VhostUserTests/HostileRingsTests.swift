import Driver
import Glibc
import Memory
import PCI
import Testing
import VhostUser
import Virtio
import VirtioNet
import VirtioNetDevice
import Wire

/// A back-end writes into the rings, or before a packet, what it must not.
@Suite(.serialized) struct HostileRingsTests {
  @Test(arguments: VirtioNetDevice.malformations, [[], .packedRing] as [VirtioFeatures])
  func ringsAndHeadersThatAreMalformed(name: String, format: VirtioFeatures) throws {
    let (near, far) = try DatagramWire.pair()
    var options = ServedBackEnd.options
    options.additional = format
    let device = VirtioNetDevice(wire: near, options: options)
    device.malform(name)
    let served = ServedBackEnd(device, wire: near.descriptor)
    do {
      let front = try FrontEnd(path: served.path)
      var driver = try front.makeDriver(ringSize: 64)
      var pair = driver.takeQueuePair(0)
      try driver.start()
      var posted: Set<UInt32> = []
      var burst = Burst(capacity: 64)
      for number in 0..<64 as Range<UInt32> {
        burst.append(Descriptor(segment: 2 * number, length: 2048))
        posted.insert(2 * number)
      }
      try pair.postReceive(&burst)
      let bytes = FrontEnd.frame(1)
      #expect(send(far.descriptor, bytes, bytes.count, 0) == bytes.count)
      var failure: DriverError?
      var count = 0
      for _ in 0..<400 where failure == nil && pair.statistics.receiveErrors == 0 && count < 2 {
        do throws(DriverError) { try pair.receive(into: &burst) } catch { failure = error }
        for slot in (0..<burst.count).map({ burst[$0] }) {
          #expect(posted.remove(slot.segment) != nil && slot.offset + slot.length <= 2048)
        }
        count += burst.count
        burst.removeAll()
        if failure == nil { usleep(500) }
      }
      // All but a number that is smaller than what it counts is seen at once.
      let errors = pair.statistics.receiveErrors
      #expect(failure != nil || errors > 0 || count < 2)
      driver.stop()
      var packets = Burst(capacity: 64)
      pair.takeBack(segments: &burst, packets: &packets)
      for segment in (0..<burst.count).map({ burst[$0].segment }) {
        #expect(posted.remove(segment) != nil)
      }
      #expect(posted.isEmpty, "\(posted.count) segments are lost")
      try front.access.quiesce()
    }
    // The next front-end finds a device in order.
    let front = try FrontEnd(path: served.path)
    var driver = try front.makeDriver()
    var pair = driver.takeQueuePair(0)
    try driver.start()
    try front.exchange(20, &pair, wire: far.descriptor)
    driver.stop()
    try front.access.quiesce()
    served.end()
  }
}
