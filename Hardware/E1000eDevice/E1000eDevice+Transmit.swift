import EmulatedPCI
import Glibc
import Wire

/// From the driver's buffers to the wire (82574 datasheet, 7.2).
extension E1000eDevice {
  /// Descriptors of a queue in one step.
  private static let burst = 256
  /// The longest buffer of one descriptor outside of segmentation (7.2.9).
  private static let longestBuffer = 16288
  /// Bytes of one packet before it is segmented.
  private static let longestPacket = 0x10000 + 256

  /// TARC.ENABLE of the queue, 10.2.6.
  private func isOn(_ queue: Int) -> Bool {
    isTransmitting && self[Register.tarc + Register.queueStride * queue] >> 10 & 1 != 0
      && transmitQueues[queue].ring.isUsable
  }

  var hasTransmitWork: Bool {
    guard linkIsUp else { return false }
    return (0..<Self.queueCount).contains { isOn($0) && transmitQueues[$0].ring.available > 0 }
  }

  /// Without a link, descriptors stay where they are.
  func transmitBurst(_ queue: Int) -> Bool {
    guard isOn(queue), linkIsUp, transmitQueues[queue].ring.available > 0 else { return false }
    var now: UInt32 = 0
    var later: UInt32 = 0
    for _ in 0..<Self.burst where transmitQueues[queue].ring.available > 0 {
      let address = transmitQueues[queue].ring.headAddress
      guard let words = Descriptor(at: address, iommu) else {
        transmitQueues[queue].ring.isHalted = true
        break
      }
      let descriptor = TransmitDescriptor(words)
      guard process(descriptor, queue), finish(descriptor, queue) else {
        transmitQueues[queue].ring.isHalted = true
        break
      }
      let cause = Cause.txdw | Cause.txq0 << UInt32(queue)
      if descriptor.reportsStatus {
        if descriptor.delaysInterrupt { later |= cause } else { now |= cause }
        // IVAR bit 31: the queue's own cause follows every write-back.
        if self[Register.ivar] >> 31 != 0 { now |= Cause.txq0 << UInt32(queue) }
      }
    }
    if transmitQueues[queue].ring.available == 0 { now |= Cause.txqe }
    if later != 0 { raiseTransmitLater(later) }
    if now != 0 { raise(now) }
    return true
  }

  /// Reports and moves on.
  private func finish(_ descriptor: TransmitDescriptor, _ queue: Int) -> Bool {
    let ring = transmitQueues[queue].ring
    transmitQueues[queue].ring.advance()
    guard descriptor.reportsStatus else { return true }
    var back = WriteBack(
      isReceive: false, queue: queue, count: ring.count, bufferBytes: descriptor.byteCount,
      tail: ring.tail, index: ring.head, low: descriptor.words.low,
      high: descriptor.words.high | 1 << 32, isExtended: descriptor.kind != .legacy)
    spoil(&back)
    guard back.isWritten else { return true }
    return Descriptor(low: back.low, high: back.high)
      .write(to: ring.address(of: back.index % ring.count), iommu)
  }

  /// - Returns: false where memory could not be reached.
  private func process(_ descriptor: TransmitDescriptor, _ queue: Int) -> Bool {
    switch descriptor.kind {
    case .legacy, .data: return gather(descriptor, queue)
    case .context:
      setContext(TransmitContext(descriptor.words), queue)
      return true
    case .unknown:
      violations.add("7.2.10", "a descriptor of type \(descriptor.words.high >> 20 & 15)")
      return true
    }
  }

  private func setContext(_ context: TransmitContext, _ queue: Int) {
    if transmitQueues[queue].packet.isOpen {
      violations.add("7.2.10", "a context in the middle of a packet")
    }
    if let fault = context.fault { violations.add("7.2.10", "a context with \(fault)") }
    if context.segments { statistics.count(Statistics.segmentationContexts) }
    transmitQueues[queue].context = context
  }

  /// Adds one buffer to the packet, and sends that when it is whole.
  private func gather(_ descriptor: TransmitDescriptor, _ queue: Int) -> Bool {
    let isExtended = descriptor.kind == .data
    if !transmitQueues[queue].packet.isOpen { begin(descriptor, queue) }
    if transmitQueues[queue].packet.isExtended != isExtended {
      refuse(queue, "7.2.9", "legacy and extended descriptors in one packet")
    }
    let count = descriptor.byteCount
    if descriptor.address == 0 && count > 0 {
      refuse(queue, "7.2.9", "a descriptor of \(count) bytes without a buffer")
    } else if count > Self.longestBuffer && !transmitQueues[queue].packet.isSegmented {
      refuse(queue, "7.2.9", "a descriptor of \(count) bytes")
    } else if transmitQueues[queue].packet.bytes.count + count > Self.longestPacket {
      refuse(queue, "7.2.9", "a packet of more than \(Self.longestPacket) bytes")
    } else if count > 0 {
      let start = transmitQueues[queue].packet.bytes.count
      transmitQueues[queue].packet.bytes.append(contentsOf: repeatElement(0, count: count))
      let isRead = transmitQueues[queue].packet.bytes.withUnsafeMutableBytes {
        iommu.read(descriptor.address, into: UnsafeMutableRawBufferPointer(rebasing: $0[start...]))
      }
      guard isRead else { return false }
    }
    if descriptor.endsPacket {
      let packet = transmitQueues[queue].packet
      transmitQueues[queue].packet = TransmitQueue.Packet()
      end(packet, descriptor, queue)
    }
    return true
  }

  private func refuse(_ queue: Int, _ section: String, _ what: String) {
    violations.add(section, what)
    transmitQueues[queue].packet.isBad = true
  }

  private func begin(_ descriptor: TransmitDescriptor, _ queue: Int) {
    var packet = TransmitQueue.Packet()
    packet.isOpen = true
    packet.isExtended = descriptor.kind == .data
    packet.isSegmented = packet.isExtended && descriptor.segments
    packet.inserts = packet.isExtended ? descriptor.options : 0
    packet.checksumStart = descriptor.checksumStart
    if packet.isSegmented { setEnd(&packet, descriptor) }
    transmitQueues[queue].packet = packet
  }

  private func setEnd(_ packet: inout TransmitQueue.Packet, _ descriptor: TransmitDescriptor) {
    packet.insertsFCS = descriptor.insertsFCS
    let isTagged = descriptor.insertsVLAN && self[Register.ctrl] & Ctrl.vlanMode != 0
    packet.vlan = isTagged ? descriptor.vlan : nil
  }

  private func end(
    _ gathered: TransmitQueue.Packet, _ last: TransmitDescriptor, _ queue: Int
  ) {
    var packet = gathered
    guard !packet.isBad else {
      counters.malformedPackets += 1
      return
    }
    if !packet.isSegmented { setEnd(&packet, last) }
    let frames: [[UInt8]]
    if packet.isSegmented {
      guard let segments = segment(packet, queue) else {
        statistics.count(Statistics.segmentationFailures)
        counters.malformedPackets += 1
        return
      }
      frames = segments
      counters.segments += UInt64(max(0, segments.count - 1))
    } else {
      var frame = packet.bytes
      guard insertChecksums(&frame, packet, last, queue) else {
        counters.malformedPackets += 1
        return
      }
      frames = [frame]
    }
    for frame in frames { send(frame, vlan: packet.vlan, insertsFCS: packet.insertsFCS) }
  }

  // MARK: Checksums outside of segmentation

  private func insertChecksums(
    _ frame: inout [UInt8], _ packet: TransmitQueue.Packet, _ last: TransmitDescriptor,
    _ queue: Int
  ) -> Bool {
    if !packet.isExtended {
      guard last.insertsChecksum else { return true }
      return insert(
        &frame, from: packet.checksumStart, to: frame.count, at: last.checksumOffset, "7.2.9")
    }
    if packet.inserts == 0 { return true }
    guard let context = transmitQueues[queue].context else {
      violations.add("7.2.11", "a packet asks for checksums before any context was set")
      return false
    }
    if context.segments {
      violations.add(
        "7.2.11", "a packet asks for checksums, and the context is one for segmentation")
    }
    if packet.inserts & TransmitDescriptor.insertIP != 0 {
      let end = context.ipEnd == 0 ? frame.count : context.ipEnd + 1
      guard insert(&frame, from: context.ipStart, to: end, at: context.ipOffset, "7.2.11") else {
        return false
      }
    }
    if packet.inserts & TransmitDescriptor.insertTransport != 0 {
      let end = context.transportEnd == 0 ? frame.count : context.transportEnd + 1
      guard
        insert(
          &frame, from: context.transportStart, to: end, at: context.transportOffset, "7.2.11")
      else { return false }
      checkChecksum(frame)
    }
    return true
  }

  private func insert(
    _ frame: inout [UInt8], from start: Int, to end: Int, at offset: Int, _ section: String
  ) -> Bool {
    guard start < end, end <= frame.count, offset + 2 <= frame.count, offset >= start else {
      violations.add(
        section, "a checksum from \(start) to \(end) at \(offset) in a frame of \(frame.count)")
      return false
    }
    let checksum = ~Checksum.sum(frame[start..<end])
    frame[offset] = UInt8(checksum >> 8)
    frame[offset + 1] = UInt8(truncatingIfNeeded: checksum)
    return true
  }

  /// Software leaves the pseudo-header's sum in the field: where it did not, the result is wrong.
  func checkChecksum(_ frame: [UInt8]) {
    guard let headers = PacketHeaders(frame) else { return }
    if headers.hasRightTransportChecksum(frame) == false {
      violations.add("7.2.11", "a frame goes out with a wrong checksum that the device inserted")
    }
    if !headers.isIPv6 && !headers.hasRightHeaderChecksum(frame) {
      violations.add("7.2.11", "a frame goes out with a wrong IP header checksum")
    }
  }

  // MARK: To the wire

  private func send(_ whole: [UInt8], vlan: UInt16?, insertsFCS: Bool) {
    var frame = whole
    if !insertsFCS {
      guard frame.count > 4, Checksum.crc(Array(frame.dropLast(4))) == Array(frame.suffix(4)) else {
        violations.add("7.2.11", "a frame without IFCS that does not end with its CRC")
        counters.malformedPackets += 1
        return
      }
      frame.removeLast(4)
    }
    if frame.count < 17 {
      violations.add("7.2", "a frame of \(frame.count) bytes")
      counters.malformedPackets += 1
      return
    }
    if let vlan {
      let type = self[Register.vet]
      let tag = [UInt8(type >> 8 & 0xff), UInt8(type & 0xff), UInt8(vlan >> 8), UInt8(vlan & 0xff)]
      frame.insert(contentsOf: tag, at: 12)
    }
    if frame.count + 4 > Self.longestFrame {
      violations.add("7.2", "a frame of \(frame.count) bytes")
      counters.malformedPackets += 1
      return
    }
    if frame.count < 60 {
      if self[Register.tctl] & Tctl.padShort == 0 {
        violations.add("10.2.6", "a frame of \(frame.count) bytes without TCTL.PSP")
      }
      frame += [UInt8](repeating: 0, count: 60 - frame.count)
    }
    countSent(frame)
    if self[Register.rctl] >> 6 & 3 == 1 {
      accept(frame)
    } else if put(frame) {
      counters.sentFrames += 1
      counters.sentBytes += UInt64(frame.count)
    } else {
      counters.lostFrames += 1
    }
  }

  private func countSent(_ frame: [UInt8]) {
    let wireBytes = frame.count + 4
    statistics.count(Statistics.sent)
    statistics.count(Statistics.octetsSent, by: wireBytes)
    statistics.count(Statistics.goodSent)
    statistics.count(Statistics.goodOctetsSent, by: wireBytes)
    statistics.countSize(Statistics.sentBySize, bytes: wireBytes)
    if frame[0..<6].allSatisfy({ $0 == 0xff }) {
      statistics.count(Statistics.broadcastSent)
    } else if frame[0] & 1 != 0 {
      statistics.count(Statistics.multicastSent)
    }
  }

  private func put(_ frame: [UInt8]) -> Bool {
    // The wire's header, of a frame that leaves nothing to others.
    var header: (UInt64, UInt32) = (0, 0)
    return withUnsafeMutableBytes(of: &header) { header in
      frame.withUnsafeBytes { body in
        withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { pieces in
          pieces.initializeElement(
            at: 0, to: iovec(iov_base: header.baseAddress, iov_len: 12))
          // A wire only reads.
          let start = UnsafeMutableRawPointer(mutating: body.baseAddress)
          pieces.initializeElement(at: 1, to: iovec(iov_base: start, iov_len: body.count))
          return wire.send(UnsafeBufferPointer(pieces))
        }
      }
    }
  }
}
