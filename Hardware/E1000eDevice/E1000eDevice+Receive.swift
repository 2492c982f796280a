import EmulatedPCI
import Glibc
import Wire

/// From the wire to the driver's buffers (82574 datasheet, 7.1).
extension E1000eDevice {
  /// Frames from the wire, and descriptors, in one step.
  private static let burst = 64
  private static let descriptorBurst = 256
  /// Bytes with CRC: of ordinary frames with a VLAN tag; and with RCTL.LPE, an MTU of 9 KB with header and CRC.
  private static let ordinaryBytes = 1522
  static let longestFrame = 9216 + 18

  var hasReceiveWork: Bool {
    guard isReceiving, let frame = packetBuffer.frames.first else { return false }
    return receiveRings[frame.queue].isUsable && receiveRings[frame.queue].available > 0
  }

  func receiveBurst() -> Bool {
    var causes: UInt32 = 0
    var budget = Self.descriptorBurst
    var worked = storeFrames(&budget, &causes)
    for _ in 0..<Self.burst {
      updatePause()
      guard !isPaused, let frame = takeFromWire() else { break }
      accept(frame)
      worked = true
      _ = storeFrames(&budget, &causes)
    }
    if causes & Cause.rxdmt0 != 0 {
      // 7.1.9: the threshold is not delayed, and ends the delay of what waits.
      raise(causes | interruptState.receive.causes)
      interruptState.receive = .init()
    } else if causes != 0 {
      raiseReceive(causes)
    }
    return worked
  }

  /// IEEE 802.3x: above FCRTH the partner is told to wait, below FCRTL to go on (CTRL.TFCE, 10.2.5). The wire keeps its
  /// frames meanwhile.
  private func updatePause() {
    let high = Int(self[Register.fcrth] & 0xfff8)
    let low = Int(self[Register.fcrtl] & 0xfff8)
    guard self[Register.ctrl] & Ctrl.transmitPause != 0, high > 0 else {
      isPaused = false
      return
    }
    if !isPaused && packetBuffer.byteCount >= high {
      isPaused = true
      statistics.count(Statistics.pauseSent)
    } else if isPaused && packetBuffer.byteCount <= low {
      isPaused = false
      if self[Register.fcrtl] >> 31 != 0 { statistics.count(Statistics.resumeSent) }
    }
  }

  private func takeFromWire() -> [UInt8]? {
    let piece = iovec(iov_base: scratch, iov_len: Self.scratchBytes)
    let count = withUnsafePointer(to: piece) {
      wire.receive(into: UnsafeBufferPointer(start: $0, count: 1))
    }
    guard let count else { return nil }
    // A frame larger than the room was cut: it is too long whatever it is.
    let room = min(count, Self.scratchBytes)
    let bytes = UnsafeRawBufferPointer(start: scratch, count: room).dropFirst(12)
    return Array(bytes)
  }

  // MARK: Into the packet buffer

  /// A frame from the wire, without CRC. Shorter ones than Ethernet allows are padded, as their sender would have.
  func accept(_ arrived: [UInt8]) {
    guard isReceiving && linkIsUp else {
      counters.unwantedFrames += 1
      return
    }
    guard arrived.count >= 14 else {
      statistics.count(Statistics.undersized)
      counters.badFrames += 1
      return
    }
    var frame = arrived
    if frame.count < 60 { frame += [UInt8](repeating: 0, count: 60 - frame.count) }
    let wireBytes = frame.count + 4
    statistics.count(Statistics.received)
    statistics.count(Statistics.octetsReceived, by: wireBytes)
    let rctl = self[Register.rctl]
    let limit = rctl & Rctl.longPackets != 0 ? Self.longestFrame : Self.ordinaryBytes
    if wireBytes > limit {
      statistics.count(Statistics.oversized)
      statistics.count(Statistics.lengthErrors)
      counters.badFrames += 1
      return
    }
    let isDamaged = damagedFrames > 0
    if isDamaged {
      damagedFrames -= 1
      statistics.count(Statistics.crcErrors)
      if rctl & Rctl.storeBad == 0 {
        counters.badFrames += 1
        return
      }
    }
    let verdict = ReceiveFilter(registers: registers).verdict(frame, vlanType: self[Register.vet])
    if verdict == .refused {
      counters.filteredFrames += 1
      return
    }
    let stored = describe(frame, isInexact: verdict == .inexact, isDamaged: isDamaged)
    guard packetBuffer.byteCount + stored.bytes.count <= Int(self[Register.pba] & 0xff) * 1024
    else {
      statistics.count(Statistics.missed)
      statistics.count(Statistics.receiverOverruns)
      counters.missedFrames += 1
      raise(Cause.rxo)
      return
    }
    if !isDamaged { countGood(frame, wireBytes) }
    if receiveRings[stored.queue].available == 0 { statistics.count(Statistics.noBuffers) }
    packetBuffer.append(stored)
  }

  private func countGood(_ frame: [UInt8], _ wireBytes: Int) {
    statistics.count(Statistics.goodReceived)
    statistics.count(Statistics.goodOctetsReceived, by: wireBytes)
    statistics.countSize(Statistics.receivedBySize, bytes: wireBytes)
    if frame[0..<6].allSatisfy({ $0 == 0xff }) {
      statistics.count(Statistics.broadcastReceived)
    } else if frame[0] & 1 != 0 {
      statistics.count(Statistics.multicastReceived)
    }
  }

  /// What the descriptors will say of a frame (7.1.3 to 7.1.6, 7.1.10).
  private func describe(_ frame: [UInt8], isInexact: Bool, isDamaged: Bool) -> PacketBuffer.Frame {
    let rxcsum = self[Register.rxcsum]
    let headers = PacketHeaders(frame)
    var status: UInt32 = isInexact ? ReceiveStatus.inexact : 0
    var errors: UInt32 = isDamaged ? ReceiveErrors.crc : 0
    if rxcsum & (Rxcsum.ip | Rxcsum.tcpudp) == 0 { status |= ReceiveStatus.ignoreChecksum }
    if let headers, rxcsum & Rxcsum.ip != 0, !headers.isIPv6 {
      status |= ReceiveStatus.ipChecked
      if !headers.hasRightHeaderChecksum(frame) { errors |= ReceiveErrors.ip }
    }
    if let headers, rxcsum & Rxcsum.tcpudp != 0,
      let isRight = headers.hasRightTransportChecksum(frame)
    {
      status |= ReceiveStatus.transportChecked
      if headers.isUDP { status |= ReceiveStatus.udpChecked }
      if !isRight { errors |= ReceiveErrors.transport }
    }
    var bytes = frame
    if self[Register.rctl] & Rctl.stripCRC == 0 { bytes += Checksum.crc(frame) }
    var vlan: UInt16 = 0
    let type = UInt32(frame[12]) << 8 | UInt32(frame[13])
    if self[Register.ctrl] & Ctrl.vlanMode != 0 && type == self[Register.vet] {
      vlan = UInt16(frame[14]) << 8 | UInt16(frame[15])
      bytes.removeSubrange(12..<16)
      status |= ReceiveStatus.vlan
    }
    let start = Int(rxcsum & 0xff)
    let checksum = start < bytes.count ? Checksum.sum(bytes[start...]) : 0
    let (queue, low) = steer(frame, headers, checksum)
    return PacketBuffer.Frame(
      bytes: bytes, queue: queue, low: low, status: status, errors: errors,
      packetChecksum: checksum, vlan: vlan, frameBytes: frame.count)
  }

  /// The queue, and the first word of the extended descriptor: hash and type, or packet checksum and IP identification.
  private func steer(
    _ frame: [UInt8], _ headers: PacketHeaders?, _ checksum: UInt16
  ) -> (queue: Int, low: UInt64) {
    guard self[Register.mrqc] & 3 == 1 else {
      return (0, UInt64(checksum) << 48)
    }
    let key = (0..<40).map {
      UInt8(truncatingIfNeeded: self[Register.rssrk + $0 & ~3] >> UInt32(8 * ($0 & 3)))
    }
    let (hash, type) = ReceiveSideScaling.hash(
      frame, headers, mrqc: self[Register.mrqc], key: key)
    if type == 0 { return (0, 0) }
    let entry = Int(hash & 0x7f)
    let word = self[Register.reta + entry & ~3]
    let queue = Int(word >> UInt32(8 * (entry & 3) + 7) & 1)
    return (queue, UInt64(hash) << 32 | UInt64(queue) << 8 | UInt64(type))
  }

  // MARK: Into the driver's buffers

  /// - Parameters:
  ///   - budget: descriptors that may still be used in this step.
  ///   - causes: gathers what is to be interrupted for.
  private func storeFrames(_ budget: inout Int, _ causes: inout UInt32) -> Bool {
    guard isReceiving, let bufferBytes = Rctl.bufferBytes(self[Register.rctl]) else { return false }
    var worked = false
    while budget > 0, let frame = packetBuffer.frames.first {
      let ring = receiveRings[frame.queue]
      if ring.count == 0 {
        violations.add("7.1.11", "a frame for \(ring.name), which has no ring")
        packetBuffer.removeFirst()
        counters.missedFrames += 1
        continue
      }
      guard ring.isUsable, ring.available > 0 else { break }
      worked = true
      budget -= 1
      guard storePiece(of: frame, bufferBytes) else {
        receiveRings[frame.queue].isHalted = true
        break
      }
      causes |= completedCauses(frame.queue)
    }
    return worked
  }

  /// The first frame's progress may have ended it, or brought the ring to its threshold (RCTL.RDMTS).
  private func completedCauses(_ queue: Int) -> UInt32 {
    var causes: UInt32 = 0
    if let first = packetBuffer.frames.first, first.done == first.bytes.count {
      counters.receivedFrames += 1
      counters.receivedBytes += UInt64(first.frameBytes)
      packetBuffer.removeFirst()
      causes = Cause.rxt0 | Cause.rxq0 << UInt32(queue)
    }
    let ring = receiveRings[queue]
    if ring.available == ring.count >> Int((self[Register.rctl] >> 8 & 3) + 1) {
      causes |= Cause.rxdmt0 | Cause.rxq0 << UInt32(queue)
    }
    return causes
  }

  /// One descriptor's worth of a frame.
  /// - Returns: false where memory could not be reached.
  private func storePiece(of frame: PacketBuffer.Frame, _ bufferBytes: Int) -> Bool {
    let ring = receiveRings[frame.queue]
    guard let given = Descriptor(at: ring.address(of: ring.head), iommu) else { return false }
    let isExtended = self[Register.rfctl] & Rfctl.extendedStatus != 0
    if given.high >> (isExtended ? 0 : 32) & 1 != 0 {
      violations.add("7.1.3", "descriptor \(ring.head) of \(ring.name) was given with DD set")
    }
    if given.low == 0 {
      // 7.1.7.2: a null descriptor takes no data; only DD is written.
      violations.add("7.1.7.2", "descriptor \(ring.head) of \(ring.name) has no buffer")
      return writeBack(
        Descriptor(low: 0, high: given.high | 1 << (isExtended ? 0 : 32)), frame.queue, bufferBytes)
    }
    let count = min(bufferBytes, frame.bytes.count - frame.done)
    let stored = frame.bytes.withUnsafeBytes {
      iommu.write(
        given.low, from: UnsafeRawBufferPointer(rebasing: $0[frame.done..<frame.done + count]))
    }
    guard stored else { return false }
    let isLast = frame.done + count == frame.bytes.count
    packetBuffer.firstDone += count
    let back =
      isExtended
      ? extendedDescriptor(frame, count, isLast: isLast)
      : legacyDescriptor(frame, count, isLast: isLast, address: given.low)
    return writeBack(back, frame.queue, bufferBytes)
  }

  private func writeBack(_ descriptor: Descriptor, _ queue: Int, _ bufferBytes: Int) -> Bool {
    let ring = receiveRings[queue]
    var back = WriteBack(
      isReceive: true, queue: queue, count: ring.count, bufferBytes: bufferBytes, tail: ring.tail,
      index: ring.head, low: descriptor.low, high: descriptor.high,
      isExtended: self[Register.rfctl] & Rfctl.extendedStatus != 0)
    spoil(&back)
    receiveRings[queue].advance()
    guard back.isWritten else { return true }
    return Descriptor(low: back.low, high: back.high)
      .write(to: ring.address(of: back.index % ring.count), iommu)
  }

  func spoil(_ back: inout WriteBack) {
    if back.isReceive, !receiveMalformations.isEmpty {
      receiveMalformations.removeFirst().apply(to: &back)
    } else if !back.isReceive, !transmitMalformations.isEmpty {
      transmitMalformations.removeFirst().apply(to: &back)
    }
    corrupt?(&back)
  }

  /// 7.1.3: length, packet checksum, status, errors, VLAN tag.
  private func legacyDescriptor(
    _ frame: PacketBuffer.Frame, _ count: Int, isLast: Bool, address: UInt64
  ) -> Descriptor {
    var high = UInt64(count) | UInt64(frame.packetChecksum) << 16 | UInt64(ReceiveStatus.done) << 32
    if isLast {
      high |= UInt64(frame.status | ReceiveStatus.endOfPacket) << 32
      high |= UInt64(frame.errors) << 40 | UInt64(frame.vlan) << 48
    }
    return Descriptor(low: address, high: high)
  }

  /// 7.1.4: hash or checksum, then extended status and errors, length, VLAN tag.
  private func extendedDescriptor(
    _ frame: PacketBuffer.Frame, _ count: Int, isLast: Bool
  ) -> Descriptor {
    var high = UInt64(ReceiveStatus.done) | UInt64(count) << 32
    if isLast {
      high |= UInt64(frame.status | ReceiveStatus.endOfPacket)
      high |= UInt64(frame.errors) << 24 | UInt64(frame.vlan) << 48
    }
    return Descriptor(low: frame.low, high: high)
  }
}

/// Status of a receive descriptor: the same eight bits in both formats.
enum ReceiveStatus {
  static let done: UInt32 = 1 << 0
  static let endOfPacket: UInt32 = 1 << 1
  static let ignoreChecksum: UInt32 = 1 << 2
  static let vlan: UInt32 = 1 << 3
  static let udpChecked: UInt32 = 1 << 4
  static let transportChecked: UInt32 = 1 << 5
  static let ipChecked: UInt32 = 1 << 6
  static let inexact: UInt32 = 1 << 7
}

/// Errors of a receive descriptor: eight bits, from bit 24 of the extended status.
enum ReceiveErrors {
  static let crc: UInt32 = 1 << 0
  static let transport: UInt32 = 1 << 5
  static let ip: UInt32 = 1 << 6
}
