import CLinux
import Driver
import Glibc
import Memory
import PCI
import Testing
import VFIO
import VhostUser
import VirtioNet
import VirtioNetDevice
import Wire

@Suite(.serialized) struct DriverOverVhostUserTests {
  /// The whole way: connection, memory table, rings by message, model, wire; twice, over two connections.
  @Test func theDriverRunsOverASocketAndTheNextFrontEndToo() throws {
    let (near, far) = try DatagramWire.pair()
    let device = VirtioNetDevice(wire: near, options: ServedBackEnd.options)
    let served = ServedBackEnd(device, wire: near.descriptor)
    for _ in 0..<2 {
      let front = try FrontEnd(path: served.path)
      var driver = try front.makeDriver()
      #expect(driver.interface.macAddress.description == "52:54:00:12:34:56")
      #expect(driver.interface.mtu == 1500 && driver.interface.linkIsUp)
      var pair = driver.takeQueuePair(0)
      try driver.start()
      try front.exchange(500, &pair, wire: far.descriptor)
      driver.stop()
      try front.access.quiesce()
    }
    served.end()
    #expect(device.violations.first == [])
    #expect(device.iommu.faults == [])
    #expect(served.server.refusals.total == 0)
    #expect(served.server.frontEnds == 2)
    #expect(device.counters.receivedFrames == 1000 && device.counters.sentFrames == 1000)
  }

  /// A driver that is stopped and made again over one connection finds its rings at their start.
  @Test func aDriverIsMadeAnewOverTheSameConnection() throws {
    let (near, far) = try DatagramWire.pair()
    let device = VirtioNetDevice(wire: near, options: ServedBackEnd.options)
    let served = ServedBackEnd(device, wire: near.descriptor)
    let front = try FrontEnd(path: served.path)
    for ringSize in [16, 1024] {
      var driver = try front.makeDriver(ringSize: ringSize)
      var pair = driver.takeQueuePair(0)
      try driver.start()
      try front.exchange(100, &pair, wire: far.descriptor)
      driver.stop()
    }
    try front.access.quiesce()
    served.end()
    #expect(served.server.refusals.total == 0 && device.violations.first == [])
  }

  /// Call descriptors are the driver's eventfds, and kicks wake a back-end that sleeps.
  @Test func interruptsComeByCallAndKicksWakeTheBackEnd() throws {
    let (near, far) = try DatagramWire.pair()
    let device = VirtioNetDevice(wire: near, options: ServedBackEnd.options)
    let served = ServedBackEnd(device, wire: near.descriptor)
    let front = try FrontEnd(path: served.path)
    let event = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(event) }
    var driver = try front.makeDriver(
      interrupts: InterruptPlan(configuration: -1, queues: [event]))
    var pair = driver.takeQueuePair(0)
    try driver.start()
    for _ in 0..<5 {
      try front.exchange(3, &pair, wire: far.descriptor)
      var value: UInt64 = 0
      _ = read(event, &value, 8)
      let maySleep = pair.armInterrupts(transmit: false)
      #expect(maySleep)
      // Long enough for the back-end to sleep.
      usleep(20_000)
      let frame = FrontEnd.frame(0)
      #expect(send(far.descriptor, frame, frame.count, 0) == frame.count)
      var entry = pollfd(fd: event, events: Int16(POLLIN), revents: 0)
      #expect(poll(&entry, 1, 30_000) == 1)
      pair.disarmInterrupts()
      var received = Burst(capacity: 64)
      try pair.receive(into: &received)
      let count = received.count
      #expect(count == 1)
    }
    driver.stop()
    try front.access.quiesce()
    served.end()
    #expect(served.server.refusals.total == 0 && device.violations.first == [])
  }

  /// MQ by the protocol's own means: no control queue, every pair is switched on by SET_VRING_ENABLE.
  @Test func severalQueuePairsNeedNoCommand() throws {
    let (near, far) = try DatagramWire.pair()
    var options = ServedBackEnd.options
    options.queuePairs = 4
    let device = VirtioNetDevice(wire: near, options: options)
    let served = ServedBackEnd(device, wire: near.descriptor)
    let front = try FrontEnd(path: served.path, queuePairs: 3)
    var driver = try front.makeDriver(ringSize: 64)
    #expect(driver.interface.queuePairs == 3)
    #expect(driver.interface.features.contains("MQ"))
    #expect(!driver.interface.features.contains("CTRL_VQ"))
    var first = driver.takeQueuePair(0)
    var second = driver.takeQueuePair(1)
    var third = driver.takeQueuePair(2)
    try driver.start()
    // The model deals frames out to the receive rings in turn: all of them have buffers.
    try post(0, &first)
    try post(1, &second)
    try post(2, &third)
    for number in 0..<9 {
      let frame = FrontEnd.frame(number)
      #expect(send(far.descriptor, frame, frame.count, 0) == frame.count)
    }
    var counts = [0, 0, 0]
    for _ in 0..<1_000_000 where counts.reduce(0, +) < 9 {
      counts[0] += try take(&first)
      counts[1] += try take(&second)
      counts[2] += try take(&third)
      usleep(20)
    }
    #expect(counts.reduce(0, +) == 9 && counts.allSatisfy { $0 > 0 })
    driver.stop()
    try front.access.quiesce()
    served.end()
    #expect(served.server.refusals.total == 0 && device.violations.first == [])
  }

  private func post(_ number: Int, _ pair: inout VirtioNetQueuePair) throws {
    var burst = Burst(capacity: 16)
    for index in 0..<8 {
      burst.append(Descriptor(segment: UInt32(number * 16 + index * 2), length: 2048, tag: 0))
    }
    try pair.postReceive(&burst)
    let left = burst.count
    #expect(left == 0)
  }

  private func take(_ pair: inout VirtioNetQueuePair) throws -> Int {
    var burst = Burst(capacity: 64)
    try pair.receive(into: &burst)
    return burst.count
  }

  /// The back-end dies without a word and another one takes its place: the driver says so, gives everything back, and
  /// is made anew on the same memory over a new socket, with the address it had.
  @Test func aBackEndThatComesBackIsGoneOnWith() throws {
    let (near, far) = try DatagramWire.pair()
    let path = socketPath()
    var device = VirtioNetDevice(wire: near, options: ServedBackEnd.options)
    var served = ServedBackEnd(device, wire: near.descriptor, path: path)
    let front = try FrontEnd(path: path)
    var driver = try front.makeDriver()
    let address = driver.interface.macAddress
    var pair = driver.takeQueuePair(0)
    try driver.start()
    try front.exchange(50, &pair, wire: far.descriptor)
    let changed = try driver.handleConfigurationChange()
    #expect(!changed)

    served.end()
    var loss: DriverError?
    do throws(DriverError) {
      _ = try driver.handleConfigurationChange()
    } catch {
      loss = error
    }
    #expect(loss == .deviceGone)
    driver.stop()
    var segments = Burst(capacity: 512)
    var packets = Burst(capacity: 64)
    pair.takeBack(segments: &segments, packets: &packets)
    let (back, unsent) = (segments.count, packets.count)
    #expect(back > 0 && unsent == 0)
    #expect(throws: PCIError.self) { try front.access.reconnect() }

    device = VirtioNetDevice(wire: near, options: ServedBackEnd.options)
    served = ServedBackEnd(device, wire: near.descriptor, path: path)
    try front.access.reconnect()
    try front.function.replaceSocket(front.access.descriptor)
    driver = try front.makeDriver()
    #expect(driver.interface.macAddress == address)
    pair = driver.takeQueuePair(0)
    try driver.start()
    try front.exchange(50, &pair, wire: far.descriptor)
    driver.stop()
    try front.access.quiesce()
    served.end()
    #expect(served.server.refusals.total == 0 && device.violations.first == [])
  }

  @Test func nobodyListening() {
    let error = #expect(throws: PCIError.self) { try VhostUserAccess(path: "/tmp/none.sock") }
    #expect(error?.description.contains("no back-end can be reached") == true)
  }
}
