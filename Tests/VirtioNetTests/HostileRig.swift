import CLinux
import Driver
import DriverConformance
import EmulatedPCI
import Memory
import PCI
import Testing
import Virtio
import VirtioNet
import Wire

@testable import VirtioNetDevice

/// Formats of rings, by what the device adds to its features.
let formats: [VirtioFeatures] = [[], .inOrder, .packedRing, [.packedRing, .inOrder]]

/// The driver on a device that a test makes break its contract, and a record of what was posted and sent. Whatever the
/// device does, each thing comes back once, and after a reset all is well: ``recover()``.
final class HostileRig {
  let wire = MemoryWire()
  let device: VirtioNetDevice
  let function: HostileFunction
  /// What the registers say.
  let registers = RegisterScript()
  private let memory: DriverMemory
  static let address: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56]

  private var running: AccountedDriver<VirtioNet>?
  private var nextSegment: UInt32 = 0

  init(
    _ additional: VirtioFeatures = [], withheld: VirtioFeatures = [], mtu: UInt16 = 9000,
    queuePairs: Int = 1, carriesOffloads: Bool = true
  ) throws {
    wire.carriesOffloads = carriesOffloads
    var options = VirtioNetDevice.Options()
    options.macAddress = Self.address
    options.mtu = mtu
    options.queuePairs = queuePairs
    options.additional = additional
    options.withheld = withheld
    device = VirtioNetDevice(wire: wire, options: options)
    function = HostileFunction(device)
    memory = try DriverMemory(mappedIn: device.iommu, arenaByteCount: 1 << 20)
    function.hostility = registers
  }

  /// Started, with so many buffers posted.
  /// - Returns: also the device's side of the receive queue.
  static func receiving(
    _ additional: VirtioFeatures = [], withheld: VirtioFeatures = [], ringSize: Int = 64,
    posted: Int
  ) throws -> (HostileRig, HostileVirtqueue) {
    let rig = try HostileRig(additional, withheld: withheld)
    try rig.start(ringSize: ringSize)
    try rig.post(posted)
    return (rig, try rig.queue(0))
  }

  var rings: DMARange { memory.rings }

  /// Registers of the common configuration (virtio 1.2, 4.1.4.3).
  static func isCommon(_ access: RegisterAccess, _ offset: Int) -> Bool {
    access.bar == 4 && access.offset == UInt64(offset)
  }
  /// A field of the device configuration (5.1.4).
  static func isDevice(_ access: RegisterAccess, _ offset: Int) -> Bool {
    access.bar == 4 && access.offset == 0x2000 + UInt64(offset)
  }

  // MARK: The driver

  func start(
    ringSize: Int = 256, pairs: Int = 1, interrupts: InterruptPlan = .none
  ) throws(DriverError) {
    running = try AccountedDriver(
      DriverResources(
        function: function, rings: DMAZone(memory.rings), arena: memory.arena, queuePairs: pairs,
        ringSize: ringSize, interrupts: interrupts, requiresPlatformAccess: true))
  }

  /// Why it does not start; nil where it does.
  func failure(ringSize: Int = 256, pairs: Int = 1, interrupts: InterruptPlan = .none)
    -> DriverError?
  {
    do throws(DriverError) {
      try start(ringSize: ringSize, pairs: pairs, interrupts: interrupts)
      return nil
    } catch {
      return error
    }
  }

  func command() throws(DriverError) { try running!.driver.setPromiscuous(true) }
  func lookAtConfiguration() throws(DriverError) -> Bool {
    try running!.driver.handleConfigurationChange()
  }
  /// Buffers that the driver would take.
  func room() -> Int { running!.pair.receiveRoom }
  func statistics() -> QueueStatistics { running!.pair.statistics }
  func interface() -> NetworkInterface { running!.driver.interface }

  /// Segments of 2048 bytes, each lent from its 52nd byte on.
  func post(_ count: Int) throws {
    var slots: [Descriptor] = []
    for _ in 0..<count {
      slots.append(Descriptor(segment: nextSegment * 2, offset: 52, length: 2048 - 52))
      nextSegment = (nextSegment + 1) % 256
    }
    try running!.post(slots)
  }

  /// A packet as it came: its pieces' bytes, and what was said of it.
  struct Received {
    var metadata: Offload?
    var isChecksumValid: Bool
    var pieces: [Int]
    var byteCount: Int { pieces.reduce(0, +) }
  }

  /// Takes what has come, once: each piece lies in a buffer that the driver holds.
  func receive() throws(DriverError) -> [Received] {
    let (slots, failure) = running!.receive()
    var packets: [Received] = []
    var next = Received(isChecksumValid: false, pieces: [])
    for slot in slots {
      if slot.flags.contains(.offload) {
        next.metadata = Offload(slot)
        #expect(next.metadata != nil && next.pieces.isEmpty)
        continue
      }
      next.pieces.append(Int(slot.length))
      if slot.flags.contains(.more) { continue }
      next.isChecksumValid = slot.flags.contains(.checksumValid)
      packets.append(next)
      next = Received(isChecksumValid: false, pieces: [])
    }
    #expect(next.pieces.isEmpty)
    if let failure { throw failure }
    return packets
  }

  /// Why the queue is broken: found at the first look or, where good buffers came before, at the second; and it stays so.
  func receiveFailure() -> DriverError? {
    var found: DriverError?
    for _ in 0..<4 {
      do throws(DriverError) {
        let packets = try receive()
        #expect(found == nil && packets.count <= 1, "a queue that is broken goes on")
      } catch {
        #expect(found == nil || found == error)
        found = error
      }
    }
    return found
  }

  /// Sends packets of 64 bytes with these tags, each of two pieces.
  func send(_ tags: [UInt16], metadata: Offload? = nil) throws {
    var slots: [Descriptor] = []
    for tag in tags {
      if var metadata {
        metadata.tag = tag
        slots.append(metadata.slot)
      }
      let segment = UInt32(600 + Int(tag))
      slots.append(Descriptor(segment: segment, length: 30, flags: .more, tag: tag))
      slots.append(Descriptor(segment: segment, offset: 30, length: 34, tag: tag))
    }
    try running!.transmit(slots)
  }

  /// Takes completions, each of a packet that is sent.
  func complete() throws(DriverError) -> [UInt16] {
    let (tags, failure) = running!.complete()
    if let failure { throw failure }
    return tags
  }

  func completionFailure() -> DriverError? {
    var found: DriverError?
    for _ in 0..<3 {
      do throws(DriverError) {
        _ = try complete()
        #expect(found == nil, "a queue that is broken goes on")
      } catch {
        found = error
      }
    }
    return found
  }

  /// Of the receive ring: what the device held comes back.
  func resetReceiveRing() throws {
    var burst = Burst(capacity: 256)
    try running!.pair.resetReceiveRing(into: &burst)
    running!.takeBack(segments: burst)
    #expect(running!.holdsNoSegment)
  }

  // MARK: The device

  /// The device's side of a queue, played by the test: 0 receives, 1 sends.
  func queue(_ index: Int) throws -> HostileVirtqueue {
    try #require(HostileVirtqueue(device, queue: index))
  }

  /// The device says that a buffer holds a packet of so many bytes, with this header.
  func use(
    _ queue: inout HostileVirtqueue, _ header: [UInt8] = [], byteCount: Int, buffers: UInt16 = 1
  ) throws {
    let buffer = try #require(queue.buffer())
    for at in 0..<10 { volatile_store8(buffer + at, at < header.count ? header[at] : 0) }
    volatile_store8(buffer + 10, UInt8(truncatingIfNeeded: buffers))
    volatile_store8(buffer + 11, UInt8(buffers >> 8))
    queue.use(length: UInt32(12 + byteCount))
  }

  /// virtio_net_hdr without the number of buffers (5.1.6).
  static func header(
    flags: UInt8 = 0, segmentation: UInt8 = 0, headerLength: UInt16 = 0, segmentSize: UInt16 = 0,
    checksumStart: UInt16 = 0, checksumOffset: UInt16 = 0
  ) -> [UInt8] {
    [flags, segmentation]
      + [headerLength, segmentSize, checksumStart, checksumOffset].flatMap {
        [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)]
      }
  }

  // MARK: Afterwards

  /// The driver stops and gives back all that it held, each thing once; the device is honest again and is reset, and the
  /// driver starts anew and moves packets both ways without a complaint.
  func recover() throws {
    registers.beHonest()
    try running?.stop()
    running = nil
    device.reset()
    device.violations.clear()
    device.iommu.clearFaults()
    wire.arriving = []
    wire.sent = []
    try start(ringSize: 64)
    try post(8)
    wire.arriving = [frame(1), frame(2, byteCount: 4000)]
    try send([1, 2])
    while device.step() {}
    let packets = try receive()
    #expect(packets.map(\.byteCount) == [64, 4000])
    let tags = try complete()
    #expect(tags == [1, 2] && wire.sent.count == 2)
    try running?.stop()
    running = nil
    #expect(device.violations.first == [])
    #expect(device.iommu.faults == [])
  }
}
