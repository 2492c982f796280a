import CLinux
import Driver
import DriverConformance
import E1000e
import EmulatedPCI
import Memory
import PCI
import Testing
import Wire

@testable import E1000eDevice

/// The driver on a controller that a test makes break its contract, and a record of what was posted and sent.
final class HostileController {
  let wire = MemoryWire()
  let device: E1000eDevice
  let function: HostileFunction
  private let isExtended: Bool
  /// What the registers say.
  let registers = RegisterScript()
  private let memory: DriverMemory
  private var running: AccountedDriver<E1000e>?
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
    memory = try DriverMemory(mappedIn: device.iommu, arenaByteCount: 2 << 20)
    function.hostility = registers
    function.stepsAfterWrites = true
  }

  // MARK: The driver

  func start(ringSize: Int = 64) throws(DriverError) {
    running = try AccountedDriver(
      DriverResources(
        function: function, rings: DMAZone(memory.rings), arena: memory.arena, ringSize: ringSize))
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
    var slots: [Memory.Descriptor] = []
    for _ in 0..<count {
      slots.append(Memory.Descriptor(segment: nextSegment * 2, length: 2048))
      nextSegment = (nextSegment + 1) % 512
    }
    try running!.post(slots)
  }

  /// Takes what has come, once.
  /// - Returns: the packets' bytes.
  func receive() throws(DriverError) -> [Int] {
    let (slots, failure) = running!.receive()
    var packets: [Int] = []
    var bytes = 0
    checkedPackets = []
    for slot in slots {
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
    // What is sent is not stepped away at the doorbell.
    function.stepsAfterWrites = false
    try running!.transmit(
      tags.map { Memory.Descriptor(segment: 1200 + UInt32($0), length: 64, tag: $0) })
    function.stepsAfterWrites = true
  }

  func complete() throws(DriverError) -> [UInt16] {
    let (tags, failure) = running!.complete()
    if let failure { throw failure }
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
    registers.beHonest()
    try running?.stop()
    running = nil
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
    try running?.stop()
    running = nil
    #expect(device.violations.first == [])
    #expect(device.iommu.faults == [])
  }
}
