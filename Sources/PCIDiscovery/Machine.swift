import Glibc

/// What the kernel shows of this machine, in files. Tests make a tree of their own.
public struct Machine: Sendable {
  /// Stands before /sys, /proc, /dev and /run.
  let root: String
  let interfaceAddresses: @Sendable () -> [(interface: String, address: String)]
  /// Writes a text into a file of sysfs, in one piece. Returns 0 or the errno.
  let write: @Sendable (_ path: String, _ text: String) -> Int32

  public init() {
    self.init(root: "", interfaceAddresses: Self.configuredAddresses, write: Self.writeFile)
  }

  init(
    root: String,
    interfaceAddresses: @escaping @Sendable () -> [(interface: String, address: String)],
    write: @escaping @Sendable (String, String) -> Int32
  ) {
    self.root = root
    self.interfaceAddresses = interfaceAddresses
    self.write = write
  }

  func path(_ path: String) -> String { root + path }

  func exists(_ path: String) -> Bool { access(root + path, F_OK) == 0 }

  /// A file's text without the white space at its end; nil where it cannot be read.
  func text(_ path: String, limit: Int = 1 << 20) -> String? {
    let descriptor = open(root + path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 16384)
    while bytes.count < limit {
      let count = read(descriptor, &part, part.count)
      guard count >= 0 else { return nil }
      if count == 0 { break }
      bytes += part[..<count]
    }
    while let last = bytes.last, last == 10 || last == 32 || last == 9 || last == 0 {
      bytes.removeLast()
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  func lines(_ path: String) -> [Substring] {
    (text(path) ?? "").split(separator: "\n")
  }

  /// A file that holds one number, decimal or hexadecimal with 0x before it.
  func number(_ path: String) -> UInt64? {
    guard let text = text(path) else { return nil }
    return text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
  }

  /// The last part of what a symbolic link points to.
  func linkName(_ path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { readlink(root + path, $0.baseAddress!, $0.count) }
    guard count > 0 else { return nil }
    return String(decoding: buffer[..<count], as: UTF8.self).split(separator: "/").last
      .map(String.init)
  }

  /// The path behind all links, `root` included.
  func realPath(_ path: String) -> String? {
    guard let resolved = realpath(root + path, nil) else { return nil }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// What a folder holds, sorted; nothing where it cannot be read.
  func entries(_ path: String) -> [String] {
    guard let folder = opendir(root + path) else { return [] }
    defer { closedir(folder) }
    var names: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// The addresses of this network namespace's interfaces, link-local ones left out.
  @Sendable private static func configuredAddresses() -> [(interface: String, address: String)] {
    var list: UnsafeMutablePointer<ifaddrs>?
    guard getifaddrs(&list) == 0 else { return [] }
    defer { freeifaddrs(list) }
    var result: [(interface: String, address: String)] = []
    var next = list
    while let entry = next {
      next = entry.pointee.ifa_next
      guard let address = entry.pointee.ifa_addr else { continue }
      let family = Int32(address.pointee.sa_family)
      guard family == AF_INET || family == AF_INET6 else { continue }
      var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
      let length =
        family == AF_INET ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size
      guard
        getnameinfo(
          address, socklen_t(length), &host, socklen_t(host.count), nil, 0, NI_NUMERICHOST) == 0
      else { continue }
      let text = String(
        decoding: host.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      if text.hasPrefix("fe80:") { continue }
      result.append((String(cString: entry.pointee.ifa_name), text))
    }
    return result
  }

  @Sendable private static func writeFile(_ path: String, _ text: String) -> Int32 {
    let descriptor = open(path, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return errno }
    defer { close(descriptor) }
    let bytes = Array(text.utf8)
    return Glibc.write(descriptor, bytes, bytes.count) == bytes.count ? 0 : errno
  }
}
