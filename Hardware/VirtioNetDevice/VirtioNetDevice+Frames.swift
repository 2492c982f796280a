import EmulatedPCI
import Glibc
import Virtio
import Wire

/// Frames between the rings and the wire (virtio 1.2, 5.1.6).
extension VirtioNetDevice {
  /// Frames of each direction in one step.
  private static let burst = 64

  func moveFrames() -> Bool {
    guard isRunning else { return drainWire() }
    var worked = false
    for pair in 0..<queuePairsInUse where sendBurst(2 * pair + 1) { worked = true }
    if receiveBurst() { worked = true }
    if runCommands() { worked = true }
    return worked
  }

  /// Asks the driver to notify, before the device stops looking by itself.
  /// - Returns: whether there is nothing to do: false when the driver has been quicker.
  public func prepareToSleep() -> Bool {
    guard isRunning else { return true }
    looksByItself = false
    setNotifications(true)
    if (0..<queuePairsInUse).contains(where: { hasWork(2 * $0 + 1) }) { return false }
    if isOutOfBuffers && hasWork(0) {
      isOutOfBuffers = false
      return false
    }
    if let control = controlQueue, hasWork(control) { return false }
    for pair in 0..<queuePairsInUse {
      if isOutOfBuffers && !hasWork(2 * pair) { queues[2 * pair].isAsleep = true }
      queues[2 * pair + 1].isAsleep = true
    }
    if let control = controlQueue { queues[control].isAsleep = true }
    return true
  }

  /// Whether a queue has something that the device would see, were it to look.
  private func hasWork(_ index: Int) -> Bool {
    !queues[index].isAsleep && queues[index].pending(iommu, &violations) > 0
  }

  /// The device looks by itself again: no notifications are needed.
  public func wake() {
    for index in queues.indices { queues[index].isAsleep = false }
    looksByItself = true
    setNotifications(false)
  }

  /// The event index (2.7.10) says where the driver notifies, not that it never should: while the device looks by
  /// itself it goes along, or the driver would come past it once in 65536 buffers.
  private func keepQuiet(_ queue: Int) {
    if looksByItself { queues[queue].setNotifications(false, iommu, features) }
  }

  private func setNotifications(_ on: Bool) {
    guard isRunning else { return }
    for pair in 0..<queuePairsInUse {
      // A queue that was left without buffers is told of new ones, whatever another one has.
      let isWaiting = isOutOfBuffers || queues[2 * pair].isAsleep
      queues[2 * pair].setNotifications(on && isWaiting, iommu, features)
      queues[2 * pair + 1].setNotifications(on, iommu, features)
    }
    if let control = controlQueue { queues[control].setNotifications(true, iommu, features) }
  }

  // MARK: Driver -> wire

  private func sendBurst(_ index: Int) -> Bool {
    if queues[index].isAsleep { return false }
    let count = min(queues[index].pending(iommu, &violations), Self.burst)
    if count == 0 { return false }
    for _ in 0..<count {
      guard
        queues[index].read(&chain, iommu: iommu, features: features, &violations)
      else {
        fail()
        return true
      }
      queues[index].take()
      send()
      queues[index].putUsed(chain.asHead, byteCount: 0, &violations)
    }
    queues[index].publish()
    keepQuiet(index)
    interruptQueue(index)
    return true
  }

  private func send() {
    if !chain.writable.isEmpty {
      violations.add("5.1.6.2", "a transmit chain with \(chain.writableBytes) writable bytes")
    }
    guard chain.readableBytes >= VirtioNetHeader.byteCount + 14 else {
      violations.add("5.1.6.2", "a transmit chain of \(chain.readableBytes) bytes")
      counters.malformedChains += 1
      return
    }
    var header = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount)
    splitHeader(into: &header)
    let bytes = chain.readableBytes - VirtioNetHeader.byteCount
    guard isGoodHeader(header, frameBytes: bytes) else {
      counters.malformedChains += 1
      return
    }
    if !linkIsUp {
      counters.lostFrames += 1
      return
    }
    let isPlain = header[VirtioNetHeader.flags] & VirtioNetHeader.needsChecksum == 0
    let sent: Bool
    if isPlain || wire.carriesOffloads {
      sent = header.withUnsafeMutableBytes { copy in
        pieces[0] = iovec(iov_base: copy.baseAddress, iov_len: copy.count)
        return pieces.withUnsafeBufferPointer { wire.send($0) }
      }
    } else {
      sent = sendWithChecksum(header)
    }
    if sent {
      counters.sentFrames += 1
      counters.sentBytes += UInt64(bytes)
    } else {
      counters.lostFrames += 1
    }
  }

  /// Copies the header, however the driver has split it, and leaves the frame's pieces in `pieces` from index 1.
  private func splitHeader(into header: inout [UInt8]) {
    pieces.removeAll(keepingCapacity: true)
    pieces.append(iovec())
    var wanted = VirtioNetHeader.byteCount
    for piece in chain.readable {
      let taken = min(wanted, piece.iov_len)
      for index in 0..<taken {
        header[VirtioNetHeader.byteCount - wanted + index] = piece.iov_base.load(
          fromByteOffset: index, as: UInt8.self)
      }
      wanted -= taken
      if piece.iov_len > taken {
        pieces.append(iovec(iov_base: piece.iov_base + taken, iov_len: piece.iov_len - taken))
      }
    }
  }

  private func word(_ header: [UInt8], _ offset: Int) -> Int {
    Int(header[offset]) | Int(header[offset + 1]) << 8
  }

  private func isGoodHeader(_ header: [UInt8], frameBytes: Int) -> Bool {
    var isGood = true
    func refuse(_ what: String) {
      violations.add("5.1.6.2.1", what)
      isGood = false
    }
    let flags = header[VirtioNetHeader.flags]
    let segmentation = header[VirtioNetHeader.segmentation]
    if word(header, VirtioNetHeader.bufferCount) != 0 { refuse("num_buffers is not 0") }
    if flags & ~VirtioNetHeader.needsChecksum != 0 { refuse("header flags \(flags)") }
    if flags & VirtioNetHeader.needsChecksum != 0 {
      if !features.contains(.checksum) { refuse("NEEDS_CSUM although CSUM was not agreed") }
      let end =
        word(header, VirtioNetHeader.checksumStart) + word(header, VirtioNetHeader.checksumOffset)
        + 2
      if end > frameBytes { refuse("a checksum that ends at \(end) in a frame of \(frameBytes)") }
    }
    if segmentation != VirtioNetHeader.segmentationNone {
      let isAgreed =
        segmentation == VirtioNetHeader.segmentationTCP4 && features.contains(.hostTSO4)
        || segmentation == VirtioNetHeader.segmentationTCP6 && features.contains(.hostTSO6)
      if !isAgreed { refuse("segmentation \(segmentation), which was not agreed") }
      if flags & VirtioNetHeader.needsChecksum == 0 { refuse("segmentation without NEEDS_CSUM") }
      if word(header, VirtioNetHeader.segmentSize) == 0 { refuse("segmentation with size 0") }
    } else if frameBytes > Int(options.mtu) + 18 {
      refuse("a frame of \(frameBytes) bytes over an MTU of \(options.mtu)")
    }
    return isGood
  }

  /// For wires that cannot: the device itself finishes the checksum, in a copy of its own.
  private func sendWithChecksum(_ header: [UInt8]) -> Bool {
    var frame: [UInt8] = []
    for piece in pieces.dropFirst() {
      frame += UnsafeRawBufferPointer(start: piece.iov_base, count: piece.iov_len)
    }
    let start = word(header, VirtioNetHeader.checksumStart)
    let at = start + word(header, VirtioNetHeader.checksumOffset)
    var sum: UInt32 = 0
    var index = start
    while index < frame.count {
      let low = index + 1 < frame.count ? UInt32(frame[index + 1]) : 0
      sum += UInt32(frame[index]) << 8 | low
      index += 2
    }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    let checksum = ~UInt16(sum)
    frame[at] = UInt8(checksum >> 8)
    frame[at + 1] = UInt8(truncatingIfNeeded: checksum)
    var plain = [UInt8](repeating: 0, count: VirtioNetHeader.byteCount)
    return plain.withUnsafeMutableBytes { header in
      frame.withUnsafeMutableBytes { body in
        let both = [
          iovec(iov_base: header.baseAddress, iov_len: header.count),
          iovec(iov_base: body.baseAddress, iov_len: body.count),
        ]
        return both.withUnsafeBufferPointer { wire.send($0) }
      }
    }
  }

  // MARK: Wire -> driver

  private func receiveBurst() -> Bool {
    var queue = 0
    var received = 0
    while received < Self.burst {
      if queuePairsInUse > 1 {
        queue = 2 * ((received + Int(counters.receivedFrames)) % queuePairsInUse)
      }
      guard let outcome = receiveFrame(queue) else { break }
      received += 1
      if !outcome { break }
    }
    if received == 0 { return false }
    for pair in 0..<queuePairsInUse {
      keepQuiet(2 * pair)
      interruptQueue(2 * pair)
    }
    return true
  }

  /// - Returns: nil where no frame came; false where nothing more can.
  private func receiveFrame(_ queue: Int) -> Bool? {
    if queues[queue].isAsleep { return nil }
    let wanted = receiveRoomWanted
    pieces.removeAll(keepingCapacity: true)
    heads.removeAll(keepingCapacity: true)
    var room = 0
    let pending = queues[queue].pending(iommu, &violations)
    while heads.count < pending && room < wanted && heads.count < 64 {
      guard
        queues[queue].read(
          &chain, ahead: heads.count, iommu: iommu, features: features, &violations)
      else {
        fail()
        return false
      }
      checkReceiveChain()
      pieces += chain.writable
      heads.append(chain.asHead)
      room += chain.writableBytes
      if !features.contains(.mergeableBuffers) { break }
    }
    if room < min(wanted, 1526) {
      isOutOfBuffers = true
      return nil
    }
    isOutOfBuffers = false
    guard let byteCount = pieces.withUnsafeBufferPointer({ wire.receive(into: $0) }) else {
      return nil
    }
    deliver(byteCount, room: room, queue: queue)
    return true
  }

  /// 5.1.6.3: how much room a frame may need.
  private var receiveRoomWanted: Int {
    let isLarge = features.contains(.guestTSO4) || features.contains(.guestTSO6)
    return VirtioNetHeader.byteCount + (isLarge ? 65562 : Int(options.mtu) + 18)
  }

  private func checkReceiveChain() {
    if !chain.readable.isEmpty {
      violations.add("5.1.6.3", "a receive buffer with \(chain.readableBytes) readable bytes")
    }
    if chain.writableBytes < VirtioNetHeader.byteCount {
      violations.add("5.1.6.3.1", "a receive buffer of \(chain.writableBytes) bytes")
    }
    if !features.contains(.mergeableBuffers) && chain.writableBytes < 1526 {
      violations.add(
        "5.1.6.3.1", "a receive buffer of \(chain.writableBytes) bytes without MRG_RXBUF")
    }
  }

  private func deliver(_ byteCount: Int, room: Int, queue: Int) {
    guard byteCount <= room, byteCount >= VirtioNetHeader.byteCount + 14 else {
      counters.oversizedFrames += 1
      return
    }
    guard linkIsUp else {
      counters.unwantedFrames += 1
      return
    }
    let destination = (0..<6).map { byte(at: VirtioNetHeader.byteCount + $0) }
    guard filter.accepts(destination) else {
      counters.filteredFrames += 1
      return
    }
    var left = byteCount
    var used = 0
    while left > 0 {
      let head = heads[used]
      var (name, taken) = (head.id, min(left, head.writableBytes))
      left -= taken
      used += 1
      malformation?.apply(to: &name, byteCount: &taken, size: queues[queue].size)
      queues[queue].putUsed(head, byteCount: taken, as: name, &violations)
      if malformation == .idTwice {
        queues[queue].putUsed(head, byteCount: taken, as: name, &violations)
      }
    }
    setByte(at: VirtioNetHeader.bufferCount, UInt8(used))
    setByte(at: VirtioNetHeader.bufferCount + 1, 0)
    malformHeader()
    queues[queue].take(used)
    queues[queue].publish(error: malformation?.indexError ?? 0)
    malformation = nil
    counters.receivedFrames += 1
    counters.receivedBytes += UInt64(byteCount - VirtioNetHeader.byteCount)
  }

  private func malformHeader() {
    switch malformation {
    case .noBuffers: setByte(at: VirtioNetHeader.bufferCount, 0)
    case .manyBuffers:
      setByte(at: VirtioNetHeader.bufferCount, 0xff)
      setByte(at: VirtioNetHeader.bufferCount + 1, 0xff)
    case .unknownSegmentation: setByte(at: 1, 0x77)
    case .checksumBeyondFrame:
      setByte(at: 0, VirtioNetHeader.needsChecksum)
      for offset in 0..<4 { setByte(at: VirtioNetHeader.checksumStart + offset, 0xff) }
    default: break
    }
  }

  private func byte(at offset: Int) -> UInt8 {
    var left = offset
    for piece in pieces {
      if left < piece.iov_len { return piece.iov_base.load(fromByteOffset: left, as: UInt8.self) }
      left -= piece.iov_len
    }
    return 0
  }

  private func setByte(at offset: Int, _ value: UInt8) {
    var left = offset
    for piece in pieces {
      if left < piece.iov_len {
        piece.iov_base.storeBytes(of: value, toByteOffset: left, as: UInt8.self)
        return
      }
      left -= piece.iov_len
    }
  }

  /// A device that is not in operation lets frames pass by.
  private func drainWire() -> Bool {
    if drained.isEmpty { drained = [UInt8](repeating: 0, count: 66_000) }
    return drained.withUnsafeMutableBytes { bytes in
      let piece = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
      var count = 0
      while count < Self.burst,
        withUnsafePointer(
          to: piece, { wire.receive(into: UnsafeBufferPointer(start: $0, count: 1)) }) != nil
      {
        counters.unwantedFrames += 1
        count += 1
      }
      return count > 0
    }
  }
}
