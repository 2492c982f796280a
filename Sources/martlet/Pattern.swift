import ArgumentParser
import CLinux
import Glibc
import Stacks

/// The bytes that the HTTP server sends for /bytes/N, for whoever wants to compare.
struct Pattern: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write the bytes of /bytes/N to standard output.")

  @Argument(help: "How many bytes.")
  var count: UInt64

  @Option(
    help: ArgumentHelp(
      "Serve them by HTTP on this TCP port instead, to one client.", valueName: "port"))
  var serve: UInt16?

  func run() throws {
    guard let serve else { return try write(to: 1) }
    signal(SIGPIPE, SIG_IGN)
    let client = try accept(onPort: serve)
    defer { close(client) }
    // What is asked for does not matter: there is one thing to have.
    var request = [UInt8](repeating: 0, count: 4096)
    guard read(client, &request, request.count) > 0 else { throw ExitCode(1) }
    let head = Array("HTTP/1.0 200 OK\r\nContent-Length: \(count)\r\n\r\n".utf8)
    try head.withUnsafeBytes { try write($0, to: client) }
    try write(to: client)
  }

  private func accept(onPort port: UInt16) throws -> Int32 {
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    let isBound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(listener, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    guard isBound, listen(listener, 1) == 0 else {
      throw CommandFailure(
        code: 1, text: "cannot listen on port \(port): \(String(cString: strerror(errno)))")
    }
    defer { close(listener) }
    let client = Glibc.accept(listener, nil, nil)
    guard client >= 0 else { throw ExitCode(1) }
    return client
  }

  private func write(to descriptor: Int32) throws {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 64)
    defer { buffer.deallocate() }
    var offset: UInt64 = 0
    while offset < count {
      let piece = UnsafeMutableRawBufferPointer(
        rebasing: buffer[..<Int(min(count - offset, UInt64(buffer.count)))])
      PatternContent.fill(piece, offset: offset)
      try write(UnsafeRawBufferPointer(piece), to: descriptor)
      offset += UInt64(piece.count)
    }
  }

  private func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) throws {
    var done = 0
    while done < bytes.count {
      let written = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
      if written < 0 && errno == EINTR { continue }
      guard written > 0 else { throw ExitCode(1) }
      done += written
    }
  }
}
