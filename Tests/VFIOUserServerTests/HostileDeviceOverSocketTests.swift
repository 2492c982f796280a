import Driver
import E1000e
import E1000eDevice
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing
import VFIO
import VFIOUserServer
import Virtio
import VirtioNet
import VirtioNetDevice
import Wire

/// A device in another process breaks its contract, or goes away, while a driver runs on it.
@Suite(.serialized) struct HostileDeviceOverSocketTests {
  /// A driver over a connection of its own, with at most 64 segments lent.
  private final class Client<D: NetworkDriver & ~Copyable> {
    let memory: Arena
    let access: VFIOUserAccess
    var driver: D
    var pair: D.QueuePair
    private var posted: Set<UInt32> = []

    init(_ path: String) throws {
      memory = try Arena(byteCount: 2 << 20, pageSize: .ordinary, name: "memory")
      access = try VFIOUserAccess(path: path, timeout: 1000)
      try access.mapDMA(
        DMAMemory(
          address: memory.address, descriptor: memory.descriptor, offset: 0, byteCount: 2 << 20),
        iova: 0x10_0000, rights: [.read, .write])
      let function = try VFIOUserFunction(negotiated: access.descriptor, timeout: 1000)
      var driver = try D(
        DriverResources(
          function: function,
          rings: DMAZone(DMARange(address: memory.address, iova: 0x10_0000, byteCount: 1 << 20)),
          arena: DMARange(
            address: memory.address + (1 << 20), iova: 0x20_0000, byteCount: 1 << 20),
          ringSize: 64))
      pair = driver.takeQueuePair(0)
      try driver.start()
      for _ in 0..<4000 where driver.interface.linkIsUp == false {
        _ = try driver.handleConfigurationChange()
        usleep(500)
      }
      self.driver = consume driver
      var burst = Burst(capacity: 64)
      for number in 0..<UInt32(min(64, pair.receiveRoom)) {
        burst.append(Descriptor(segment: 2 * number, length: 2048))
        posted.insert(2 * number)
      }
      try pair.postReceive(&burst)
    }

    /// Frames that came, and why no more do.
    func receive() -> (count: Int, error: DriverError?) {
      var burst = Burst(capacity: 128)
      var failure: DriverError?
      do throws(DriverError) { try pair.receive(into: &burst) } catch { failure = error }
      for slot in (0..<burst.count).map({ burst[$0] }) {
        #expect(posted.remove(slot.segment) != nil && slot.offset + slot.length <= 2048)
      }
      return (burst.count, failure)
    }

    /// What the driver held comes back, each thing once, in bounded time.
    func stop() {
      let before = time(nil)
      driver.stop()
      var segments = Burst(capacity: 64)
      var packets = Burst(capacity: 64)
      pair.takeBack(segments: &segments, packets: &packets)
      let back = (0..<segments.count).map { segments[$0].segment }
      for segment in back { #expect(posted.remove(segment) != nil) }
      #expect(posted.isEmpty, "\(posted.count) segments are lost")
      #expect(time(nil) - before < 8)
    }

    func looks() -> DriverError? {
      do throws(DriverError) {
        _ = try driver.handleConfigurationChange()
        return nil
      } catch {
        return error
      }
    }
  }

  @Test(arguments: VirtioNetDevice.malformations, [[], .packedRing] as [VirtioFeatures])
  func ringsAndHeadersThatAreMalformed(name: String, format: VirtioFeatures) throws {
    let (near, far) = try DatagramWire.pair()
    var options = VirtioNetDevice.Options()
    options.additional = format
    let device = VirtioNetDevice(wire: near, options: options)
    device.malform(name)
    try drive(VirtioNet.self, device, near, far)
  }

  @Test(arguments: Malformation.allCases, [true, false])
  func descriptorsThatAreMalformed(kind: Malformation, isExtended: Bool) throws {
    let (near, far) = try DatagramWire.pair()
    var options = E1000eDevice.Options()
    options.hasExtendedDescriptors = isExtended
    let device = E1000eDevice(wire: near, options: options)
    device.malformReceive(kind)
    try drive(E1000e.self, device, near, far)
  }

  /// A frame that the device spoils, and then one over a connection of its own.
  private func drive<D: NetworkDriver & ~Copyable>(
    _: D.Type, _ device: EmulatedFunction, _ near: DatagramWire, _ far: DatagramWire
  ) throws {
    let served = ServedModel(device, wire: near.descriptor)
    let bytes = DriverOverSocketTests.frame(1)
    do {
      let client = try Client<D>(served.path)
      #expect(send(far.descriptor, bytes, bytes.count, 0) == bytes.count)
      var error: DriverError?
      var count = 0
      for _ in 0..<400 where error == nil && client.pair.statistics.receiveErrors == 0 && count < 2
      {
        let more = client.receive()
        count += more.count
        error = more.error
        if error == nil { usleep(500) }
      }
      // All but a number that is smaller than what it counts is seen at once.
      #expect(error != nil || client.pair.statistics.receiveErrors > 0 || count < 2)
      client.stop()
      try client.access.quiesce()
    }
    // The next client finds a device in order.
    let client = try Client<D>(served.path)
    #expect(send(far.descriptor, bytes, bytes.count, 0) == bytes.count)
    var count = 0
    for _ in 0..<4000 where count == 0 {
      count += client.receive().count
      usleep(500)
    }
    #expect(count == 1)
    client.stop()
    served.end()
  }

  @Test func theProcessEndsInTheMiddle() throws {
    let (near, far) = try DatagramWire.pair()
    let served = ServedModel(VirtioNetDevice(wire: near), wire: near.descriptor)
    let client = try Client<VirtioNet>(served.path)
    let bytes = DriverOverSocketTests.frame(1)
    for _ in 0..<4 { _ = send(far.descriptor, bytes, bytes.count, 0) }
    served.end()
    #expect(client.looks() == .deviceGone)
    // What came before is good, and what did not come is not waited for.
    #expect(client.receive().error == nil)
    client.stop()
  }
}
