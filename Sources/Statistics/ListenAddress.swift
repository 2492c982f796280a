import CLinux
import Glibc

/// An address and a port to listen on: `127.0.0.1:9464` or `[::1]:9464`.
public struct ListenAddress: Equatable, Sendable {
  /// In network order: 4 bytes, or 16.
  public let bytes: [UInt8]
  public let port: UInt16

  /// - Returns: nil where a text names no address and port.
  public init?(_ text: String) {
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...])
    else { return nil }
    var host = String(text[..<colon])
    let isBracketed = host.hasPrefix("[") && host.hasSuffix("]")
    if isBracketed { host = String(host.dropFirst().dropLast()) }
    var bytes = [UInt8](repeating: 0, count: isBracketed ? 16 : 4)
    guard inet_pton(isBracketed ? AF_INET6 : AF_INET, host, &bytes) == 1 else { return nil }
    self.bytes = bytes
    self.port = port
  }

  /// Whether only this machine can reach it.
  public var isLoopback: Bool {
    bytes.count == 4 ? bytes[0] == 127 : bytes == [UInt8](repeating: 0, count: 15) + [1]
  }

  /// A socket that listens there and never waits.
  /// - Returns: the socket, or -errno.
  func listen() -> Int32 {
    let family = bytes.count == 4 ? AF_INET : AF_INET6
    let type = SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
    let descriptor = socket(family, Int32(type), 0)
    guard descriptor >= 0 else { return -errno }
    var one: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, socklen_t(MemoryLayout<Int32>.size))
    let bound: Int32
    if family == AF_INET {
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      withUnsafeMutableBytes(of: &address.sin_addr) { $0.copyBytes(from: bytes) }
      bound = Self.bind(descriptor, &address)
    } else {
      var address = sockaddr_in6()
      address.sin6_family = sa_family_t(AF_INET6)
      address.sin6_port = port.bigEndian
      withUnsafeMutableBytes(of: &address.sin6_addr) { $0.copyBytes(from: bytes) }
      bound = Self.bind(descriptor, &address)
    }
    guard bound == 0, Glibc.listen(descriptor, 16) == 0 else {
      let error = errno
      close(descriptor)
      return -error
    }
    return descriptor
  }

  private static func bind<Address>(_ descriptor: Int32, _ address: inout Address) -> Int32 {
    withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.bind(descriptor, $0, socklen_t(MemoryLayout<Address>.size))
      }
    }
  }

  /// Whether a request that came over the loopback interface may name this host. A page in a browser could have a name of
  /// its own resolve to this machine; such a name is none of these (RFC 9110, section 7.4).
  static func isLoopbackName(_ host: String) -> Bool {
    // Without a port.
    var name = host
    if let colon = host.lastIndex(of: ":"), host[host.index(after: colon)...].allSatisfy(\.isNumber)
    {
      name = String(host[..<colon])
    }
    if name.isEmpty || name.lowercased() == "localhost" { return true }
    return ListenAddress(name + ":0")?.isLoopback ?? false
  }
}
