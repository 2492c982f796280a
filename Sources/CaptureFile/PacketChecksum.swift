import Capture

extension CaptureRecord {
  /// Completes the checksum that was left to the device, where all of the packet is there and it is sent in one piece: what
  /// is left is then what the wire has.
  /// - Parameter packet: the bytes that were captured.
  public func completeChecksum(in packet: inout [UInt8]) {
    let start = Int(checksumStart)
    let field = start + Int(checksumOffset)
    guard start > 0, segmentBytes == 0, packet.count == Int(packetBytes), field + 2 <= packet.count
    else { return }
    // The field holds the pseudo header's sum (virtio 1.2, 5.1.6.2), which the Internet checksum (RFC 1071) goes on from.
    var sum: UInt32 = 0
    var place = start
    while place + 1 < packet.count {
      sum += UInt32(packet[place]) << 8 | UInt32(packet[place + 1])
      sum = sum & 0xffff + sum >> 16
      place += 2
    }
    if place < packet.count { sum += UInt32(packet[place]) << 8 }
    while sum >> 16 != 0 { sum = sum & 0xffff + sum >> 16 }
    let checksum = ~UInt16(sum)
    // UDP has no checksum of 0 (RFC 768).
    let isUDP = checksumOffset == 6
    let stored = checksum == 0 && isUDP ? 0xffff : checksum
    packet[field] = UInt8(stored >> 8)
    packet[field + 1] = UInt8(stored & 0xff)
  }
}
