import CLinux
import Glibc

/// A wire over a datagram socket: one datagram a frame, without any header of ours.
public final class DatagramWire: FrameWire {
  public let descriptor: Int32
  private var header = [UInt8](repeating: 0, count: 12)
  private var scratch: [iovec] = []

  /// Takes over a connected datagram socket.
  public init(adopting descriptor: Int32) {
    self.descriptor = descriptor
    scratch.reserveCapacity(256)
    // A burst of large frames does not fit the default of about 200 KB. Less is no error.
    var bytes: Int32 = 4 << 20
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, 4)
    setsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &bytes, 4)
  }

  /// Two ends of one wire, for two devices or a device and a test.
  public static func pair() throws(WireError) -> (DatagramWire, DatagramWire) {
    var ends: [Int32] = [-1, -1]
    guard
      socketpair(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0
    else { throw .system("make a socket pair", errno: errno) }
    return (DatagramWire(adopting: ends[0]), DatagramWire(adopting: ends[1]))
  }

  /// UDP between two loopback addresses. A port without an address is one of 127.0.0.1.
  /// - Parameters:
  ///   - local: where frames come in, "127.0.0.1:7001" or "7001".
  ///   - remote: where they go.
  public static func udp(local: String, remote: String) throws(WireError) -> DatagramWire {
    var near = try loopback(local)
    var far = try loopback(remote)
    let descriptor = socket(
      AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { throw .system("make a UDP socket", errno: errno) }
    let size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafePointer(to: &near) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, size) }
    }
    guard bound == 0 else {
      let error = errno
      close(descriptor)
      throw .system("bind UDP to \(local)", errno: error)
    }
    // Connected, so that the kernel drops what comes from any other address.
    let connected = withUnsafePointer(to: &far) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, size) }
    }
    guard connected == 0 else {
      let error = errno
      close(descriptor)
      throw .system("connect UDP to \(remote)", errno: error)
    }
    return DatagramWire(adopting: descriptor)
  }

  private static func loopback(_ text: String) throws(WireError) -> sockaddr_in {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let host = parts.count == 2 ? String(parts[0]) : "127.0.0.1"
    guard (1...2).contains(parts.count), let port = UInt16(parts[parts.count - 1]), port > 0 else {
      throw .malformed("\(text) is no ADDRESS:PORT or PORT, such as 127.0.0.1:7001")
    }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else {
      throw .malformed("\(host) is no IPv4 address")
    }
    guard UInt32(bigEndian: address.sin_addr.s_addr) >> 24 == 127 else {
      throw .malformed("\(host) is no loopback address: udp wires stay on this machine (127.x.x.x)")
    }
    return address
  }

  deinit { close(descriptor) }

  public var carriesOffloads: Bool { false }

  public func send(_ pieces: UnsafeBufferPointer<iovec>) -> Bool {
    guard split(pieces) else { return false }
    return scratch.withUnsafeBufferPointer {
      linux_send_pieces(descriptor, $0.baseAddress!, Int32($0.count)) > 0
    }
  }

  public func receive(into pieces: UnsafeBufferPointer<iovec>) -> Int? {
    guard split(pieces) else { return nil }
    while true {
      let result = scratch.withUnsafeBufferPointer {
        linux_receive_pieces(descriptor, $0.baseAddress!, Int32($0.count))
      }
      // An empty datagram is no frame; ECONNREFUSED says that the other end of a UDP wire was not there.
      if result == 0 || result == Int(-ECONNREFUSED) || result == Int(-EINTR) { continue }
      guard result > 0 else { return nil }
      clearHeader(pieces)
      return result + 12
    }
  }

  /// The pieces without the header's 12 bytes.
  private func split(_ pieces: UnsafeBufferPointer<iovec>) -> Bool {
    scratch.removeAll(keepingCapacity: true)
    var skip = 12
    for piece in pieces {
      let cut = min(skip, piece.iov_len)
      skip -= cut
      if piece.iov_len > cut {
        scratch.append(iovec(iov_base: piece.iov_base + cut, iov_len: piece.iov_len - cut))
      }
    }
    return skip == 0 && !scratch.isEmpty && scratch.count <= 1024
  }

  private func clearHeader(_ pieces: UnsafeBufferPointer<iovec>) {
    var left = 12
    for piece in pieces where left > 0 {
      let count = min(left, piece.iov_len)
      memset(piece.iov_base, 0, count)
      left -= count
    }
  }
}
