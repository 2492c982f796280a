import CLinux
import Glibc
import Memory
import Stacks

/// Fetches `/bytes/N` from a server and checks every byte where it lies. For machines where no kernel can be the other
/// end.
final class PatternClient: LwIPApplication, ConnectionHandler {
  private let stack: LwIPInterface
  private let byteCount: UInt64
  private var head: [UInt8] = []
  private var isInBody = false
  private var seen: UInt64 = 0
  private var failure: String?
  private let task: (address: UInt32, port: UInt16, byteCount: UInt64)
  private var started: UInt64 = 0
  private(set) var exitCode: Int32?

  init(_ stack: LwIPInterface, _ task: (address: UInt32, port: UInt16, byteCount: UInt64)) {
    self.stack = stack
    self.task = task
    byteCount = task.byteCount
  }

  /// It watches the clock.
  var nextDeadline: Int32 { 1 }

  /// Starts, and notices the end.
  func serve() -> Bool {
    if exitCode != nil { return false }
    if started == 0 {
      started = monotonic_nanoseconds()
      do {
        _ = try stack.connect(to: task.address, port: task.port, self)
      } catch {
        failure = error.description
      }
    }
    if failure == nil && monotonic_nanoseconds() - started > 120_000_000_000 {
      failure = "no end after 120 s"
    }
    if let failure {
      report("fetch failed after \(seen) bytes: \(failure)")
      exitCode = 1
    } else if isInBody && seen == byteCount {
      let seconds = Double(monotonic_nanoseconds() - started) / 1e9
      report(
        "fetched \(byteCount) bytes, every one as expected, \(Int(Double(byteCount) / seconds / 1e6)) MB/s"
      )
      exitCode = 0
    }
    return false
  }

  func connected(_ connection: ZeroCopyConnection) {
    let text = Array("GET /bytes/\(byteCount) HTTP/1.1\r\nHost: martlet\r\n\r\n".utf8)
    do {
      let buffer = try stack.buffers.allocate(byteCount: text.count)
      buffer.address.copyMemory(from: text, byteCount: text.count)
      if try connection.write(buffer.address, byteCount: text.count) < text.count {
        failure = "lwIP does not take the request"
      }
      connection.flush()
    } catch {
      failure = error.description
    }
  }

  func received(_ bytes: UnsafeRawBufferPointer, _ connection: ZeroCopyConnection) { check(bytes) }

  func peerFinished(_ connection: ZeroCopyConnection) {
    if seen < byteCount { failure = "the server closed the connection" }
    connection.close()
  }

  func ended(_ end: ZeroCopyConnection.End, _ connection: ZeroCopyConnection) {
    if case .lost(let code) = end { failure = "the connection was reset (\(code))" }
  }

  private func check(_ bytes: UnsafeRawBufferPointer) {
    var body = bytes[...]
    while !isInBody, let byte = body.popFirst() {
      head.append(byte)
      if head.suffix(4) == [13, 10, 13, 10] { isInBody = true }
    }
    if body.isEmpty { return }
    if let wrong = PatternContent.firstDifference(
      UnsafeRawBufferPointer(rebasing: body), offset: seen)
    {
      failure = "byte \(seen + UInt64(wrong)) is wrong"
    }
    seen += UInt64(body.count)
  }

  private func report(_ text: String) {
    print(text)
    fflush(nil)
  }
}
