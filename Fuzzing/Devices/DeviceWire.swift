import Glibc
import Wire

/// A wire whose frames cost nothing: a length and a header each. Their bytes are the device's address, and then what lies
/// in the buffers; of one that is to be recognised, all bytes.
final class DeviceWire: FrameWire {
  struct Arrival {
    var byteCount: Int
    /// virtio_net_hdr, as the device is to hand it over.
    var header: (UInt64, UInt32) = (0, 0)
    /// What its bytes begin with.
    var bytes: [UInt8]
  }

  let carriesOffloads: Bool
  var descriptor: Int32 { -1 }
  private var arriving: [Arrival] = []
  private(set) var sentCount = 0
  /// The frame that was sent last, where it is to be looked at.
  private(set) var lastSent: [UInt8] = []
  var keepsSent = false

  init(carriesOffloads: Bool) { self.carriesOffloads = carriesOffloads }

  func clear() {
    arriving.removeAll(keepingCapacity: true)
    sentCount = 0
    lastSent.removeAll(keepingCapacity: true)
  }

  func arrive(_ arrival: Arrival) {
    if arriving.count < 16 { arriving.append(arrival) }
  }

  func send(_ pieces: UnsafeBufferPointer<iovec>) -> Bool {
    sentCount += 1
    if keepsSent {
      lastSent.removeAll(keepingCapacity: true)
      for piece in pieces {
        lastSent += UnsafeRawBufferPointer(start: piece.iov_base, count: piece.iov_len)
      }
      lastSent.removeFirst(12)
    }
    return true
  }

  func receive(into pieces: UnsafeBufferPointer<iovec>) -> Int? {
    guard !arriving.isEmpty else { return nil }
    var arrival = arriving.removeFirst()
    withUnsafeBytes(of: &arrival.header) { header in
      Self.copy(UnsafeRawBufferPointer(rebasing: header[..<12]), to: pieces, at: 0)
    }
    arrival.bytes.withUnsafeBytes { Self.copy($0, to: pieces, at: 12) }
    return 12 + arrival.byteCount
  }

  private static func copy(
    _ bytes: UnsafeRawBufferPointer, to pieces: UnsafeBufferPointer<iovec>, at offset: Int
  ) {
    var skipped = offset
    var done = 0
    for piece in pieces where done < bytes.count {
      if skipped >= piece.iov_len {
        skipped -= piece.iov_len
        continue
      }
      let count = min(piece.iov_len - skipped, bytes.count - done)
      (piece.iov_base + skipped).copyMemory(from: bytes.baseAddress! + done, byteCount: count)
      skipped = 0
      done += count
    }
  }
}
