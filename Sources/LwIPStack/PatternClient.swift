import CLwIP
import Glibc
import Stacks

/// Fetches `/bytes/N` from a server and checks every byte where it lies. For machines where no kernel can be the other
/// end.
final class PatternClient {
  private let stack: LwIPInterface
  private let byteCount: UInt64
  private var control: UnsafeMutablePointer<tcp_pcb>?
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

  /// Starts, and notices the end.
  func step() {
    if exitCode != nil { return }
    if started == 0 {
      started = Self.now()
      connect()
    }
    if failure == nil && Self.now() - started > 120_000_000_000 { failure = "no end after 120 s" }
    if let failure {
      report("fetch failed after \(seen) bytes: \(failure)")
      exitCode = 1
    } else if isInBody && seen == byteCount {
      let seconds = Double(Self.now() - started) / 1e9
      report(
        "fetched \(byteCount) bytes, every one as expected, \(Int(Double(byteCount) / seconds / 1e6)) MB/s"
      )
      exitCode = 0
    }
  }

  private func connect() {
    var result = err_t(ERR_OK.rawValue)
    control = martlet_connect(
      task.address, task.port, Unmanaged.passUnretained(self).toOpaque(),
      { argument, control, _ in
        PatternClient.from(argument).request(control)
        return err_t(ERR_OK.rawValue)
      }, &result)
    guard let control, result == err_t(ERR_OK.rawValue) else {
      failure = "lwIP cannot connect (\(result))"
      return
    }
    tcp_recv(control) { argument, control, packet, _ in
      PatternClient.from(argument).received(control, packet)
      return err_t(ERR_OK.rawValue)
    }
    tcp_err(control) { argument, code in
      PatternClient.from(argument).failure = "the connection was reset (\(code))"
    }
  }

  private static func from(_ argument: UnsafeMutableRawPointer?) -> PatternClient {
    Unmanaged<PatternClient>.fromOpaque(argument!).takeUnretainedValue()
  }

  private func request(_ control: UnsafeMutablePointer<tcp_pcb>?) {
    let text = Array("GET /bytes/\(byteCount) HTTP/1.1\r\nHost: martlet\r\n\r\n".utf8)
    if let control { tcp_write(control, text, UInt16(text.count), UInt8(TCP_WRITE_FLAG_COPY)) }
  }

  private func received(
    _ control: UnsafeMutablePointer<tcp_pcb>?, _ packet: UnsafeMutablePointer<pbuf>?
  ) {
    guard let packet else {
      if seen < byteCount { failure = "the server closed the connection" }
      return
    }
    var piece: UnsafeMutablePointer<pbuf>? = packet
    while let current = piece {
      check(
        UnsafeRawBufferPointer(start: current.pointee.payload, count: Int(current.pointee.len)))
      piece = current.pointee.next
    }
    if let control { tcp_recved(control, packet.pointee.tot_len) }
    pbuf_free(packet)
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

  private static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
