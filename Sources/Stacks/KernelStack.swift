import CLinux
import Channel
import Driver
import Glibc
import Memory
import Virtio

/// The kernel's own stack as an instance: a TAP interface with virtio-net headers, so that every program of the
/// machine can use the NIC. Frames go between segments and the kernel in place, one call each; the kernel's copy is
/// the only one.
public struct KernelStack: StackInstance, ~Copyable {
  private let environment: InstanceEnvironment
  private let channel: InstanceChannel
  private let tap: Int32
  private let receivePart: ReceivePart
  private var pool: SegmentPool
  private var sending = Burst(capacity: 256)
  /// Segments of packets in flight.
  private var inFlight = PacketTags<UInt32>(count: 4096)
  /// Bytes of the largest frame that the kernel may send.
  private let frameBytes: Int
  private let header: FrameHeader
  // Invariant: one element for the header and one for each piece that a packet may have.
  private let vectors: UnsafeMutablePointer<iovec>
  private var counts = Counts()
  /// Whether what came in has not been published yet: not every packet makes the kernel send one.
  private var hasNews = false

  struct Counts {
    var receivedPackets: UInt64 = 0
    var receiveDropped: UInt64 = 0
    var sentPackets: UInt64 = 0
    var ringFull: UInt64 = 0
  }

  /// - Parameters:
  ///   - environment: what the instance was given.
  ///   - arguments: an open TAP interface with virtio-net headers.
  ///   - channel: where it sends.
  public init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel
  ) throws(StackError) {
    self.environment = environment
    self.channel = channel
    tap = arguments.tap
    receivePart = environment.receivePart
    // Frames of the MTU in 2 KiB; what the device cuts itself, in 128 KiB.
    pool = SegmentPool(
      arena: environment.arena.address,
      range: environment.receiveBytes..<environment.arena.byteCount,
      shares: [0, 1, 0, 0, 1, 0, 0, 2])
    let isLarge = !environment.offloads.isDisjoint(with: [.transmitTCP4, .transmitTCP6])
    frameBytes = isLarge ? 65536 + 18 : environment.mtu + 18
    header = FrameHeader(bytes: .allocate(byteCount: FrameHeader.byteCount, alignment: 64))
    vectors = .allocate(capacity: 1 + Descriptor.maximumSlots)
    vectors.initialize(repeating: iovec(), count: 1 + Descriptor.maximumSlots)
    vectors[0] = iovec(iov_base: header.bytes, iov_len: FrameHeader.byteCount)
    let result = linux_set_tap_offloads(
      tap, environment.offloads.contains(.transmitChecksum) ? 1 : 0,
      environment.offloads.contains(.transmitTCP4) ? 1 : 0,
      environment.offloads.contains(.transmitTCP6) ? 1 : 0)
    if result < 0 {
      throw StackError("the TAP interface refuses offloads: \(String(cString: strerror(-result)))")
    }
    for (index, name) in [
      "stack_rx_packets", "stack_rx_dropped", "stack_tx_packets", "stack_tx_ring_full",
      "stack_segment_references",
    ].enumerated() { environment.counters.name(index, name) }
  }

  deinit {
    header.bytes.deallocate()
    vectors.deallocate()
  }

  /// Device -> kernel: header, then the pieces where they lie.
  public mutating func receive(_ burst: inout Burst, queue: Int) {
    hasNews = true
    var at = 0
    while at < burst.count {
      let first = at
      var pieces: Int32 = 0
      header.clear()
      var isGood = true
      var goesOn = true
      while goesOn && at < burst.count {
        let slot = burst[at]
        at += 1
        goesOn = slot.flags.contains(.more)
        if slot.flags.contains(.offload) {
          if let metadata = Offload(slot) { header.write(metadata) }
          continue
        }
        if slot.flags.contains(.checksumValid) {
          header.setFlags(VirtioNetHeader.dataValid)
        }
        if let bytes = receivePart.bytes(of: slot), pieces < Descriptor.maximumSlots {
          pieces += 1
          vectors[Int(pieces)] = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        } else {
          isGood = false
        }
      }
      if isGood && writev(tap, vectors, 1 + pieces) > 0 {
        counts.receivedPackets += 1
      } else {
        counts.receiveDropped += 1
      }
      // The kernel has its copy when writev returns, so the segments may go back at once.
      for index in first..<at where !burst[index].flags.contains(.offload) {
        channel.giveBack(burst[index].segment, queue: queue)
      }
    }
    publish()
  }

  /// The device has done with these packets.
  public mutating func completed(_ burst: inout Burst) {
    hasNews = true
    for index in 0..<burst.count {
      if let segment = inFlight.finish(burst[index].tag) { pool.release(segment) }
    }
  }

  /// Kernel -> device: read straight into a segment.
  public mutating func service() throws(StackError) -> Bool {
    var worked = false
    for _ in 0..<64 {
      guard sending.room >= 2, let tag = inFlight.next else {
        counts.ringFull += 1
        break
      }
      guard try readFrame(tag) else { break }
      worked = true
    }
    let before = sending.count
    channel.ends[0].transmit.push(&sending)
    if before != sending.count { worked = true }
    if worked || hasNews { publish() }
    hasNews = false
    return worked
  }

  private mutating func readFrame(_ tag: UInt16) throws(StackError) -> Bool {
    guard let segment = pool.allocate(byteCount: frameBytes) else {
      counts.ringFull += 1
      return false
    }
    vectors[1] = iovec(iov_base: pool.address(of: segment), iov_len: frameBytes)
    let count = readv(tap, vectors, 2)
    guard count > FrameHeader.byteCount + 14 else {
      pool.release(segment.unit)
      if count < 0 && errno != EAGAIN && errno != EINTR {
        throw Self.isGone(errno)
      }
      return false
    }
    if let metadata = header.metadata(tag: tag) { sending.append(metadata.slot) }
    sending.append(
      Descriptor(segment: segment.unit, length: UInt32(count - FrameHeader.byteCount), tag: tag))
    inFlight.take(for: segment.unit)
    counts.sentPackets += 1
    return true
  }

  @inline(never)
  private static func isGone(_ errno: Int32) -> StackError {
    StackError("the TAP interface is gone: \(String(cString: strerror(errno)))")
  }

  private func publish() {
    environment.counters.set(0, counts.receivedPackets)
    environment.counters.set(1, counts.receiveDropped)
    environment.counters.set(2, counts.sentPackets)
    environment.counters.set(3, counts.ringFull)
    environment.counters.set(4, UInt64(pool.totalReferences))
  }

  /// The TAP interface.
  public var descriptor: Int32 { tap }
}

/// The virtio_net_hdr (virtio 1.2, 5.1.6) that stands before each frame on a TAP interface.
private struct FrameHeader {
  // Invariant: points at `byteCount` bytes that the stack owns.
  let bytes: UnsafeMutableRawPointer

  static var byteCount: Int { VirtioNetHeader.byteCount }

  func clear() { bytes.initializeMemory(as: UInt8.self, repeating: 0, count: Self.byteCount) }

  func setFlags(_ flags: UInt8) { bytes.storeBytes(of: flags, as: UInt8.self) }

  func write(_ metadata: Offload) {
    setFlags(metadata.needsChecksum ? VirtioNetHeader.needsChecksum : 0)
    bytes.storeBytes(
      of: metadata.segmentation.rawValue, toByteOffset: VirtioNetHeader.segmentation,
      as: UInt8.self)
    store(metadata.headerLength, at: VirtioNetHeader.headerLength)
    store(metadata.segmentSize, at: VirtioNetHeader.segmentSize)
    store(metadata.checksumStart, at: VirtioNetHeader.checksumStart)
    store(metadata.checksumOffset, at: VirtioNetHeader.checksumOffset)
  }

  /// - Returns: nil where the kernel leaves nothing to the device.
  func metadata(tag: UInt16) -> Offload? {
    let flags = bytes.load(as: UInt8.self)
    let kind = bytes.load(fromByteOffset: VirtioNetHeader.segmentation, as: UInt8.self)
    guard flags & VirtioNetHeader.needsChecksum != 0 else { return nil }
    return Offload(
      segmentation: Offload.Segmentation(rawValue: kind & ~VirtioNetHeader.segmentationECN)
        ?? .none,
      needsChecksum: true, headerLength: load(VirtioNetHeader.headerLength),
      segmentSize: load(VirtioNetHeader.segmentSize),
      checksumStart: load(VirtioNetHeader.checksumStart),
      checksumOffset: load(VirtioNetHeader.checksumOffset), tag: tag)
  }

  private func store(_ value: UInt16, at offset: Int) {
    bytes.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt16.self)
  }

  private func load(_ offset: Int) -> UInt16 {
    UInt16(littleEndian: bytes.load(fromByteOffset: offset, as: UInt16.self))
  }
}
