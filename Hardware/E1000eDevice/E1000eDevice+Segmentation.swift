import EmulatedPCI

/// TCP segmentation (82574 datasheet, 7.3): one packet of the driver becomes frames of MSS bytes each.
extension E1000eDevice {
  /// - Returns: nil where the packet and its context do not fit together.
  func segment(_ packet: TransmitQueue.Packet, _ queue: Int) -> [[UInt8]]? {
    guard let context = transmitQueues[queue].context, context.segments else {
      violations.add("7.3", "a packet to be segmented without a context for that")
      return nil
    }
    guard context.fault == nil else { return nil }
    let header = Array(packet.bytes.prefix(context.headerBytes))
    let payload = packet.bytes.dropFirst(context.headerBytes)
    guard header.count == context.headerBytes, payload.count == context.payloadBytes else {
      violations.add(
        "7.3",
        "PAYLEN is \(context.payloadBytes), HDRLEN \(context.headerBytes), and the descriptors have "
          + "\(packet.bytes.count) bytes")
      return nil
    }
    if let fault = context.headerFault {
      violations.add("7.3", fault)
      return nil
    }
    var frames: [[UInt8]] = []
    var at = payload.startIndex
    while at < payload.endIndex {
      let end = min(at + context.segmentBytes, payload.endIndex)
      var frame = header + payload[at..<end]
      let sent = at - payload.startIndex
      let place = Place(
        index: frames.count, offset: sent, isLast: end == payload.endIndex)
      adjust(&frame, context, place)
      if packet.inserts & TransmitDescriptor.insertIP != 0 && context.isIPv4 {
        let end = context.ipEnd == 0 ? context.transportStart : context.ipEnd + 1
        put(&frame, context.ipOffset, ~Checksum.sum(frame[context.ipStart..<end]))
      }
      if packet.inserts & TransmitDescriptor.insertTransport != 0 {
        // The field holds the pseudo-header's sum without the length, which differs from frame to frame.
        let bytes = frame.count - context.transportStart
        let sum = Checksum.sum(frame[context.transportStart...], UInt32(bytes))
        put(&frame, context.transportOffset, ~sum)
      }
      checkChecksum(frame)
      frames.append(frame)
      at = end
    }
    return frames
  }

  private struct Place {
    var index: Int
    var offset: Int
    var isLast: Bool
  }

  /// 7.3.6: lengths, identification, sequence number and flags of one segment.
  private func adjust(_ frame: inout [UInt8], _ context: TransmitContext, _ place: Place) {
    let ip = context.ipStart
    if context.isIPv4 {
      put(&frame, ip + 2, UInt16(truncatingIfNeeded: frame.count - ip))
      put(&frame, ip + 4, get(frame, ip + 4) &+ UInt16(truncatingIfNeeded: place.index))
    } else {
      put(&frame, ip + 4, UInt16(truncatingIfNeeded: frame.count - ip - 40))
    }
    let transport = context.transportStart
    if context.isTCP {
      let first = UInt32(get(frame, transport + 4)) << 16 | UInt32(get(frame, transport + 6))
      let sequence = first &+ UInt32(truncatingIfNeeded: place.offset)
      put(&frame, transport + 4, UInt16(sequence >> 16))
      put(&frame, transport + 6, UInt16(truncatingIfNeeded: sequence))
      // FIN and PSH belong to the last one.
      if !place.isLast { frame[transport + 13] &= ~0x09 }
    } else {
      put(&frame, transport + 4, UInt16(truncatingIfNeeded: frame.count - transport))
    }
  }

  private func get(_ frame: [UInt8], _ at: Int) -> UInt16 {
    UInt16(frame[at]) << 8 | UInt16(frame[at + 1])
  }

  private func put(_ frame: inout [UInt8], _ at: Int, _ value: UInt16) {
    frame[at] = UInt8(value >> 8)
    frame[at + 1] = UInt8(truncatingIfNeeded: value)
  }
}
