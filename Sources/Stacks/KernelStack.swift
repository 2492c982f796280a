import CLinux
import Channel
import Driver
import Glibc
import Memory
import Virtio

/// The kernel's own stack as an instance: a TAP interface with virtio-net headers, so that every program of the
/// machine can use the NIC. Frames go between segments and the kernel in place, one call each; the kernel's copy is
/// the only one.
public final class KernelStack: StackInstance {
  private let environment: InstanceEnvironment
  private let channel: InstanceChannel
  private let tap: Int32
  private let arena: UnsafeMutableRawPointer
  private var pool: SegmentPool
  private var returning = Burst(capacity: 256)
  private var sending = Burst(capacity: 256)
  private var finished = Burst(capacity: 256)
  /// Segments of packets in flight, by tag.
  private var inFlight: [UInt32]
  private var freeTags: [UInt16]
  private let header: UnsafeMutableRawPointer
  private var counts = Counts()

  struct Counts {
    var receivedPackets: UInt64 = 0
    var receiveDropped: UInt64 = 0
    var sentPackets: UInt64 = 0
    var ringFull: UInt64 = 0
  }

  private static let headerBytes = VirtioNetHeader.byteCount
  private static let tags = 4096

  public init(
    _ environment: InstanceEnvironment, channel: InstanceChannel, tap: Int32
  ) throws(StackError) {
    self.environment = environment
    self.channel = channel
    self.tap = tap
    arena = environment.arena.address
    // Frames of the MTU in 2 KiB; what the device cuts itself, in 128 KiB.
    pool = SegmentPool(
      arena: arena, range: environment.receiveBytes..<environment.arena.byteCount,
      shares: [0, 1, 0, 0, 1, 0, 0, 2])
    inFlight = Array(repeating: 0, count: Self.tags)
    freeTags = (0..<UInt16(Self.tags)).reversed()
    header = .allocate(byteCount: 64, alignment: 64)
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

  deinit { header.deallocate() }

  /// Device -> kernel: header, then the pieces where they lie.
  public func receive(_ burst: inout Burst, queue: Int) {
    var at = 0
    while at < burst.count {
      var vectors: [iovec] = [iovec(iov_base: header, iov_len: Self.headerBytes)]
      header.initializeMemory(as: UInt8.self, repeating: 0, count: Self.headerBytes)
      var isGood = true
      var goesOn = true
      while goesOn && at < burst.count {
        let slot = burst[at]
        at += 1
        goesOn = slot.flags.contains(.more)
        if slot.flags.contains(.offload) {
          if let metadata = Offload(slot) { writeHeader(metadata) }
          continue
        }
        if slot.flags.contains(.checksumValid) {
          header.storeBytes(of: VirtioNetHeader.dataValid, as: UInt8.self)
        }
        if slot.position + UInt64(slot.length) <= UInt64(environment.receiveBytes) {
          vectors.append(
            iovec(iov_base: arena + Int(slot.position), iov_len: Int(slot.length)))
        } else {
          isGood = false
        }
        give(slot.segment, queue)
      }
      if isGood && writev(tap, vectors, Int32(vectors.count)) > 0 {
        counts.receivedPackets += 1
      } else {
        counts.receiveDropped += 1
      }
    }
    flushReturning(queue)
  }

  /// The kernel has its copy when writev returns, so a segment may go back at once.
  private func give(_ segment: UInt32, _ queue: Int) {
    if returning.room == 0 { flushReturning(queue) }
    if returning.room > 0 { returning.append(Descriptor(segment: segment)) }
  }

  private func flushReturning(_ queue: Int) {
    channel.ends[queue].free.push(&returning)
  }

  private func writeHeader(_ metadata: Offload) {
    header.storeBytes(
      of: metadata.needsChecksum ? VirtioNetHeader.needsChecksum : 0, as: UInt8.self)
    header.storeBytes(
      of: metadata.segmentation.rawValue, toByteOffset: VirtioNetHeader.segmentation,
      as: UInt8.self)
    for (value, offset) in [
      (metadata.headerLength, VirtioNetHeader.headerLength),
      (metadata.segmentSize, VirtioNetHeader.segmentSize),
      (metadata.checksumStart, VirtioNetHeader.checksumStart),
      (metadata.checksumOffset, VirtioNetHeader.checksumOffset),
    ] { header.storeBytes(of: value.littleEndian, toByteOffset: offset, as: UInt16.self) }
  }

  public func completed(_ burst: inout Burst) {
    for index in 0..<burst.count {
      let tag = Int(burst[index].tag)
      guard tag < inFlight.count, inFlight[tag] != 0 else { continue }
      pool.release(inFlight[tag])
      inFlight[tag] = 0
      freeTags.append(UInt16(tag))
    }
  }

  /// Kernel -> device: read straight into a segment.
  public func service() throws(StackError) -> Bool {
    var worked = false
    for _ in 0..<64 {
      guard sending.room >= 2, let tag = freeTags.last else {
        counts.ringFull += 1
        break
      }
      guard try readFrame(tag) else { break }
      freeTags.removeLast()
      worked = true
    }
    let before = sending.count
    channel.ends[0].transmit.push(&sending)
    if before != sending.count { worked = true }
    if worked { publish() }
    return worked
  }

  private func readFrame(_ tag: UInt16) throws(StackError) -> Bool {
    let isLarge = !environment.offloads.isDisjoint(with: [.transmitTCP4, .transmitTCP6])
    let byteCount = isLarge ? 65536 + 18 : environment.mtu + 18
    guard let segment = pool.allocate(byteCount: byteCount) else {
      counts.ringFull += 1
      return false
    }
    let vectors = [
      iovec(iov_base: header, iov_len: Self.headerBytes),
      iovec(iov_base: pool.address(of: segment), iov_len: byteCount),
    ]
    let count = readv(tap, vectors, 2)
    guard count > Self.headerBytes + 14 else {
      pool.release(segment.unit)
      if count < 0 && errno != EAGAIN && errno != EINTR {
        throw StackError("the TAP interface is gone: \(String(cString: strerror(errno)))")
      }
      return false
    }
    if let metadata = readHeader(tag) { sending.append(metadata.slot) }
    sending.append(
      Descriptor(segment: segment.unit, length: UInt32(count - Self.headerBytes), tag: tag))
    inFlight[Int(tag)] = segment.unit
    counts.sentPackets += 1
    return true
  }

  private func readHeader(_ tag: UInt16) -> Offload? {
    func word(_ offset: Int) -> UInt16 {
      UInt16(littleEndian: header.load(fromByteOffset: offset, as: UInt16.self))
    }
    let flags = header.load(as: UInt8.self)
    let kind = header.load(fromByteOffset: VirtioNetHeader.segmentation, as: UInt8.self)
    guard flags & VirtioNetHeader.needsChecksum != 0 else { return nil }
    return Offload(
      segmentation: Offload.Segmentation(rawValue: kind & ~VirtioNetHeader.segmentationECN)
        ?? .none,
      needsChecksum: true, headerLength: word(VirtioNetHeader.headerLength),
      segmentSize: word(VirtioNetHeader.segmentSize),
      checksumStart: word(VirtioNetHeader.checksumStart),
      checksumOffset: word(VirtioNetHeader.checksumOffset), tag: tag)
  }

  private func publish() {
    for (index, value) in [
      counts.receivedPackets, counts.receiveDropped, counts.sentPackets, counts.ringFull,
      UInt64(pool.totalReferences),
    ].enumerated() { environment.counters.set(index, value) }
  }

  public var nextDeadline: Int32 { 1000 }
  public var descriptor: Int32 { tap }
  public var exitCode: Int32? { nil }
}
