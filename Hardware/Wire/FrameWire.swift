import Glibc

/// Where an emulated network device's wire ends: a TAP interface, a datagram socket, a file, another device.
///
/// A frame travels with a virtio_net_hdr of 12 bytes in front (virtio 1.2, 5.1.6), scattered over any number of
/// buffers, so that a wire which understands that header (a TAP) can move frames between the kernel and the driver's
/// buffers without a copy. A wire that does not understand it never sees a frame whose header asks for anything, and
/// writes a header of zeros. One thread, the device's; calls do not block.
public protocol FrameWire: AnyObject {
  /// Whether headers may ask for checksums and segmentation.
  var carriesOffloads: Bool { get }

  /// Becomes readable when a frame can be received; -1 where there is none to wait for.
  var descriptor: Int32 { get }

  /// What received frames may need from the device's driver: partial checksums, and segments larger than the MTU.
  func setReceiveOffloads(checksum: Bool, tcp4: Bool, tcp6: Bool)

  /// Sends one frame.
  /// - Parameter pieces: the header's 12 bytes, then the frame.
  /// - Returns: false where the wire cannot take it now or at all; the frame is lost, as on any wire.
  func send(_ pieces: UnsafeBufferPointer<iovec>) -> Bool

  /// Receives one frame, if there is one.
  /// - Parameter pieces: room for the header's 12 bytes, then the frame.
  /// - Returns: bytes that came, header included; nil where there is none. More than the room means that the frame was
  ///   cut, and is lost.
  func receive(into pieces: UnsafeBufferPointer<iovec>) -> Int?
}

extension FrameWire {
  public func setReceiveOffloads(checksum: Bool, tcp4: Bool, tcp6: Bool) {}
}

/// A wire that ends nowhere.
public final class NullWire: FrameWire {
  public init() {}
  public var carriesOffloads: Bool { false }
  public var descriptor: Int32 { -1 }
  public func send(_ pieces: UnsafeBufferPointer<iovec>) -> Bool { true }
  public func receive(into pieces: UnsafeBufferPointer<iovec>) -> Int? { nil }
}

/// A wire in memory, for tests: frames to be received are put in, frames that were sent are taken out.
public final class MemoryWire: FrameWire {
  public var carriesOffloads = false
  public var descriptor: Int32 { -1 }
  /// Frames without header, in order of arrival.
  public var arriving: [[UInt8]] = []
  /// What was sent: the 12 bytes of header, and the frame.
  public var sent: [(header: [UInt8], frame: [UInt8])] = []

  public init() {}

  public func send(_ pieces: UnsafeBufferPointer<iovec>) -> Bool {
    let bytes = pieces.flatMap { piece in
      Array(UnsafeRawBufferPointer(start: piece.iov_base, count: piece.iov_len))
    }
    sent.append((Array(bytes.prefix(12)), Array(bytes.dropFirst(12))))
    return true
  }

  public func receive(into pieces: UnsafeBufferPointer<iovec>) -> Int? {
    guard !arriving.isEmpty else { return nil }
    let bytes = [UInt8](repeating: 0, count: 12) + arriving.removeFirst()
    var done = 0
    for piece in pieces where done < bytes.count {
      let count = min(piece.iov_len, bytes.count - done)
      bytes.withUnsafeBytes { source in
        piece.iov_base.copyMemory(from: source.baseAddress! + done, byteCount: count)
      }
      done += count
    }
    return bytes.count
  }
}
