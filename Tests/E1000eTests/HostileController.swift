import CLinux
import Driver
import E1000e
import EmulatedPCI
import Memory
import PCI
import Testing
import Wire

@testable import E1000eDevice

/// The driver on a controller that a test makes break its contract, and a record of what was posted and sent.
final class HostileController: Hostility {
  let wire = MemoryWire()
  let device: E1000eDevice
  let function: HostileFunction
  private let isExtended: Bool
  private let rings: UnsafeMutableRawPointer
  private let arena: UnsafeMutableRawPointer
  private static let ringsBytes = 1 << 20
  private static let arenaBytes = 2 << 20

  /// What a register reads as; the second argument is what it honestly would.
  var answers: (RegisterAccess, UInt64) -> UInt64 = { $1 }
  /// Called before a write reaches the device; false loses it.
  var writes: (RegisterAccess, UInt64) -> Bool = { _, _ in true }

  private final class Running {
    var driver: E1000e
    var pair: E1000eQueuePair

    init(_ driver: consuming E1000e, _ pair: consuming E1000eQueuePair) {
      self.driver = driver
      self.pair = pair
    }
  }
  private var running: Running?
  private var posted: Set<UInt32> = []
  private var inFlight: Set<UInt16> = []
  private var nextSegment: UInt32 = 0
  /// Of the packets that were received last: whether their checksum is said to be good.
  private(set) var checkedPackets: [Bool] = []
  private var filled = 0

  init(isExtended: Bool = true) throws {
    self.isExtended = isExtended
    var options = E1000eDevice.Options()
    options.hasExtendedDescriptors = isExtended
    device = E1000eDevice(wire: wire, options: options)
    function = HostileFunction(device)
    rings = .allocate(byteCount: Self.ringsBytes, alignment: 4096)
    arena = .allocate(byteCount: Self.arenaBytes, alignment: 4096)
    try device.iommu.map(
      iova: 0x10_0000, byteCount: UInt64(Self.ringsBytes), address: rings, rights: [.read, .write])
    try device.iommu.map(
      iova: 0x4000_0000, byteCount: UInt64(Self.arenaBytes), address: arena,
      rights: [.read, .write])
    function.hostility = self
    function.stepsAfterWrites = true
  }

  deinit {
    rings.deallocate()
    arena.deallocate()
  }

  func answer(_ access: RegisterAccess, honest: UInt64) -> UInt64 { answers(access, honest) }
  func accepts(_ access: RegisterAccess, _ value: UInt64) -> Bool { writes(access, value) }

  // MARK: The driver

  func start(ringSize: Int = 64) throws(DriverError) {
    var driver = try E1000e(
      DriverResources(
        function: function,
        rings: DMAZone(DMARange(address: rings, iova: 0x10_0000, byteCount: Self.ringsBytes)),
        arena: DMARange(address: arena, iova: 0x4000_0000, byteCount: Self.arenaBytes),
        ringSize: ringSize))
    let pair = driver.takeQueuePair(0)
    try driver.start()
    running = Running(driver, pair)
    filled = 0
  }

  func failure() -> DriverError? {
    do throws(DriverError) {
      try start()
      return nil
    } catch {
      return error
    }
  }

  func lookAtConfiguration() -> DriverError? {
    do throws(DriverError) {
      _ = try running!.driver.handleConfigurationChange()
      return nil
    } catch {
      return error
    }
  }

  /// Buffers that the driver would take.
  func room() -> Int { running!.pair.receiveRoom }
  func statistics() -> QueueStatistics { running!.pair.statistics }

  /// Segments of 2048 bytes.
  func post(_ count: Int) throws {
    var burst = Burst(capacity: 256)
    for _ in 0..<count {
      let segment = nextSegment * 2
      nextSegment = (nextSegment + 1) % 512
      posted.insert(segment)
      burst.append(Descriptor(segment: segment, length: 2048))
    }
    try running!.pair.postReceive(&burst)
    let left = burst.count
    try #require(left == 0)
  }

  /// Takes what has come, once.
  /// - Returns: the packets' bytes.
  func receive() throws(DriverError) -> [Int] {
    var burst = Burst(capacity: 128)
    var failure: DriverError?
    do throws(DriverError) {
      try running!.pair.receive(into: &burst)
    } catch {
      failure = error
    }
    var packets: [Int] = []
    var bytes = 0
    checkedPackets = []
    for slot in (0..<burst.count).map({ burst[$0] }) {
      #expect(posted.remove(slot.segment) != nil, "segment \(slot.segment) came twice")
      #expect(slot.length > 0 && slot.offset + slot.length <= 2048)
      bytes += Int(slot.length)
      if slot.flags.contains(.more) { continue }
      packets.append(bytes)
      checkedPackets.append(slot.flags.contains(.checksumValid))
      bytes = 0
    }
    #expect(bytes == 0)
    if let failure { throw failure }
    return packets
  }

  /// Sends packets of 64 bytes.
  func send(_ tags: [UInt16]) throws {
    var burst = Burst(capacity: 64)
    for tag in tags {
      burst.append(Descriptor(segment: 1200 + UInt32(tag), length: 64, tag: tag))
    }
    // What is sent is not stepped away at the doorbell.
    function.stepsAfterWrites = false
    try running!.pair.transmit(&burst)
    function.stepsAfterWrites = true
    inFlight.formUnion(tags)
  }

  func complete() throws(DriverError) -> [UInt16] {
    var burst = Burst(capacity: 64)
    try running!.pair.completeTransmit(into: &burst)
    let tags = (0..<burst.count).map { burst[$0].tag }
    for tag in tags { #expect(inFlight.remove(tag) != nil, "packet \(tag) was completed twice") }
    return tags
  }

  // MARK: The device

  /// The next receive descriptor looks filled (82574 datasheet, 7.1.4 and 7.1.5).
  func fill(status: UInt64, length: UInt16, errors: UInt8 = 0, low: UInt64? = nil) {
    let word =
      isExtended
      ? status | UInt64(errors) << 24 | UInt64(length) << 32
      : status << 32 | UInt64(errors) << 40 | UInt64(length)
    write(device.receiveRings[0], ahead: filled, word, low: low)
    filled += 1
  }

  private func place(_ ring: DescriptorRing, ahead: Int) -> UnsafeMutableRawPointer? {
    device.iommu.pointer(
      ring.address(of: (ring.head + ahead) % ring.count), byteCount: 16, .write)
  }

  func write(_ ring: DescriptorRing, ahead: Int, _ word: UInt64, low: UInt64? = nil) {
    guard let memory = place(ring, ahead: ahead) else { return }
    if let low { relaxed_store64(memory, low) }
    release_store64(memory + 8, word)
  }

  // MARK: Afterwards

  /// The driver stops and gives back all that it held, each thing once; the device is honest again and is reset, and the
  /// driver starts anew and moves packets both ways without a complaint.
  func recover() throws {
    answers = { $1 }
    writes = { _, _ in true }
    end()
    device.endFaults()
    device.reset()
    device.clearViolations()
    device.iommu.clearFaults()
    wire.sent = []
    try start()
    for _ in 0..<8 {
      _ = device.step()
      _ = try running!.driver.handleConfigurationChange()
    }
    try post(8)
    let frames = [64, 1514].map { count in
      [0x52, 0x54, 0, 0x12, 0x34, 0x56] + (6..<count).map { UInt8(truncatingIfNeeded: $0 * 3) }
    }
    wire.arriving = frames
    try send([1, 2])
    for _ in 0..<8 { _ = device.step() }
    let packets = try receive()
    #expect(packets == [64, 1514])
    let tags = try complete()
    #expect(tags == [1, 2] && wire.sent.count == 2)
    end()
    #expect(device.violations.first == [])
    #expect(device.iommu.faults == [])
  }

  private func end() {
    running?.driver.stop()
    var segments = Burst(capacity: 64)
    var packets = Burst(capacity: 64)
    while running != nil {
      running!.pair.takeBack(segments: &segments, packets: &packets)
      if segments.isEmpty && packets.isEmpty { break }
      let back = (0..<segments.count).map { segments[$0].segment }
      for segment in back { #expect(posted.remove(segment) != nil) }
      let tags = (0..<packets.count).map { packets[$0].tag }
      for tag in tags { #expect(inFlight.remove(tag) != nil) }
      segments.removeAll()
      packets.removeAll()
    }
    #expect(posted.isEmpty && inFlight.isEmpty, "\(posted.count), \(inFlight.count) are lost")
    running = nil
  }
}
