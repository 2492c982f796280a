import Glibc
import Wire

/// The 12 bytes before each frame of a wire.
private let headerBytes = 12

/// A frame of the wire that fits the link; nil where there is none. One that does not fit is lost, as on any wire.
func receiveFromWire(_ wire: any FrameWire, mtu: Int) -> [UInt8]? {
  while true {
    var packet = [UInt8](repeating: 0, count: mtu + 14)
    var header = [UInt8](repeating: 0, count: headerBytes)
    let received = withPieces(&header, &packet) { wire.receive(into: $0) }
    guard let received else { return nil }
    let count = received - headerBytes
    if count < 14 || count > packet.count { continue }
    packet.removeLast(packet.count - count)
    return packet
  }
}

/// - Returns: whether the wire took it.
func sendFrame(_ packet: [UInt8], to wire: any FrameWire) -> Bool {
  var header = [UInt8](repeating: 0, count: headerBytes)
  var packet = packet
  return withPieces(&header, &packet) { wire.send($0) }
}

private func withPieces<R>(
  _ header: inout [UInt8], _ packet: inout [UInt8], _ body: (UnsafeBufferPointer<iovec>) -> R
) -> R {
  header.withUnsafeMutableBytes { header in
    packet.withUnsafeMutableBytes { packet in
      let pieces = [
        iovec(iov_base: header.baseAddress, iov_len: header.count),
        iovec(iov_base: packet.baseAddress, iov_len: packet.count),
      ]
      return pieces.withUnsafeBufferPointer(body)
    }
  }
}
