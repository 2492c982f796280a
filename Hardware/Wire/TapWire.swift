import CLinux
import Glibc

/// A wire that ends in a TAP interface: frames go between the kernel and the driver's buffers in one system call and
/// without a copy in this process, offload headers included.
public final class TapWire: FrameWire {
  public let descriptor: Int32

  /// Opens the interface of that name, and makes it where it does not exist, for as long as the wire does.
  public init(name: String) throws(WireError) {
    let result = linux_open_tap(name)
    guard result >= 0 else { throw .system("open TAP interface \(name)", errno: -result) }
    descriptor = result
  }

  /// Takes over an open TAP descriptor, which has to carry a virtio-net header (IFF_VNET_HDR).
  public init(adopting descriptor: Int32) throws(WireError) {
    let result = linux_adopt_tap(descriptor)
    guard result >= 0 else {
      throw .system("use descriptor \(descriptor) as a TAP", errno: -result)
    }
    self.descriptor = descriptor
  }

  deinit { close(descriptor) }

  public var carriesOffloads: Bool { true }

  public func setReceiveOffloads(checksum: Bool, tcp4: Bool, tcp6: Bool) {
    // An interface that refuses goes on to deliver whole frames with whole checksums.
    _ = linux_set_tap_offloads(descriptor, checksum ? 1 : 0, tcp4 ? 1 : 0, tcp6 ? 1 : 0)
  }

  public func send(_ pieces: UnsafeBufferPointer<iovec>) -> Bool {
    writev(descriptor, pieces.baseAddress, Int32(pieces.count)) > 0
  }

  public func receive(into pieces: UnsafeBufferPointer<iovec>) -> Int? {
    let result = readv(descriptor, pieces.baseAddress, Int32(pieces.count))
    return result > 0 ? result : nil
  }
}

/// Why a wire cannot be made.
public enum WireError: Error, Equatable, Sendable {
  case system(String, errno: Int32)
  case malformed(String)
}

extension WireError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .system(let what, let errno): "cannot \(what): \(String(cString: strerror(errno)))"
    case .malformed(let what): what
    }
  }
}
