import CLwIP
import Memory
import Stacks

/// One connection of the server.
final class HTTPConnection: ConnectionHandler {
  private let connection: ZeroCopyConnection
  private let stack: LwIPInterface
  private var request: [UInt8] = []
  /// The body that is still to be made: pattern from `offset` to `end`.
  private var offset: UInt64 = 0
  private var end: UInt64 = 0
  /// A header, or a short answer, that is still to be written.
  private var text: [UInt8] = []
  /// A buffer that is filled up to `filledCount`, and written up to `writtenCount`.
  private var filled: SendBuffer?
  private var filledCount = 0
  private var writtenCount = 0
  /// Memory for what comes next has been asked for, and has come.
  private var wait: SendBufferWait?
  private var spare: SendBuffer?
  private var closesAfter = false
  private(set) var hasEnded = false

  private static let requestLimit = 8192
  private static let pieceBytes = 64 << 10

  init(_ connection: ZeroCopyConnection, _ stack: LwIPInterface) {
    self.connection = connection
    self.stack = stack
  }

  func received(_ bytes: UnsafeRawBufferPointer, _ connection: ZeroCopyConnection) {
    if request.count <= Self.requestLimit { request += bytes }
  }

  /// What the peer has asked for it still gets.
  func peerFinished(_ connection: ZeroCopyConnection) { closesAfter = true }

  func ended(_ end: ZeroCopyConnection.End, _ connection: ZeroCopyConnection) {
    hasEnded = true
    filled = nil
    spare = nil
    if let wait { stack.buffers.cancel(wait) }
    wait = nil
  }

  // MARK: Requests

  /// Takes the next whole request out of what has come.
  private func nextRequest() -> (line: String, head: String)? {
    let mark: [UInt8] = [13, 10, 13, 10]
    guard request.count >= 4 else { return nil }
    for at in 0...(request.count - 4) where Array(request[at..<at + 4]) == mark {
      let head = String(decoding: request[..<at], as: UTF8.self)
      request.removeFirst(at + 4)
      let line = head.split(separator: "\r\n", maxSplits: 1).first.map(String.init) ?? ""
      return (line, head.lowercased())
    }
    return nil
  }

  private func answer(_ line: String, _ head: String) {
    let words = line.split(separator: " ")
    guard words.count == 3, words[2].hasPrefix("HTTP/1.") else {
      return respond("400 Bad Request", body: "a request line has three words\n", closing: true)
    }
    let closing = words[2] == "HTTP/1.0" || head.contains("\r\nconnection: close")
    guard words[0] == "GET" || words[0] == "HEAD" else {
      return respond("405 Method Not Allowed", body: "GET and HEAD are served\n", closing: true)
    }
    let isHead = words[0] == "HEAD"
    if words[1] == "/" {
      let text = "Martlet: a driver in user space, and lwIP behind it. Try /bytes/1000000\n"
      return respond("200 OK", body: text, omitsBody: isHead, closing: closing)
    }
    if words[1].hasPrefix("/bytes/"), let count = UInt64(words[1].dropFirst(7)),
      count <= 1 << 40
    {
      write(header("200 OK", count, "application/octet-stream", closing))
      offset = 0
      end = isHead ? 0 : count
      if closing { closesAfter = true }
      return
    }
    respond(
      "404 Not Found", body: "there are / and /bytes/N\n", omitsBody: isHead, closing: closing)
  }

  private func respond(_ status: String, body: String, omitsBody: Bool = false, closing: Bool) {
    write(header(status, UInt64(body.utf8.count), "text/plain", closing) + (omitsBody ? "" : body))
    if closing { closesAfter = true }
  }

  private func header(_ status: String, _ length: UInt64, _ type: String, _ closing: Bool) -> String
  {
    "HTTP/1.1 \(status)\r\nContent-Length: \(length)\r\nContent-Type: \(type)\r\n"
      + "Connection: \(closing ? "close" : "keep-alive")\r\n\r\n"
  }

  private func write(_ text: String) { self.text = Array(text.utf8) }

  // MARK: Sending

  /// Does what can be done now.
  /// - Returns: whether it was anything.
  func send() -> Bool {
    var worked = false
    while !hasEnded && wait == nil, step() { worked = true }
    if worked { connection.flush() }
    if hasEnded || wait != nil { return worked }
    if request.count > Self.requestLimit && isIdle {
      request.removeAll()
      respond("431 Request Header Fields Too Large", body: "", closing: true)
      return true
    }
    if closesAfter && isIdle && connection.pendingByteCount == 0 { connection.close() }
    return worked
  }

  private var isIdle: Bool { filled == nil && text.isEmpty && offset == end }

  /// - Returns: false where there is nothing to do, or no room.
  private func step() -> Bool {
    if filled != nil { return writeFilled() }
    if !text.isEmpty {
      guard let buffer = buffer(text.count) else { return false }
      buffer.address.copyMemory(from: text, byteCount: text.count)
      filledCount = text.count
      filled = consume buffer
      text = []
    } else if offset < end {
      let count = Int(min(end - offset, UInt64(Self.pieceBytes)))
      guard let buffer = buffer(count) else { return false }
      PatternContent.fill(
        UnsafeMutableRawBufferPointer(start: buffer.address, count: count), offset: offset)
      offset += UInt64(count)
      filledCount = count
      filled = consume buffer
    } else if let (line, head) = nextRequest() {
      answer(line, head)
    } else {
      return false
    }
    return true
  }

  /// Memory for what comes next; nil where it has to be waited for.
  private func buffer(_ count: Int) -> SendBuffer? {
    if let spare = spare.take() { return spare }
    do throws(SendBufferError) {
      return try stack.buffers.allocate(byteCount: count)
    } catch .exhausted {
      wait = try? stack.buffers.allocate(byteCount: count) { [unowned self] buffer in
        spare = consume buffer
        wait = nil
      }
    } catch {
      // Of this size there is never one.
      connection.reset()
    }
    return nil
  }

  /// - Returns: whether any of it was taken.
  private func writeFilled() -> Bool {
    guard let address = filled?.address else { return false }
    guard
      let count = try? connection.write(
        address + writtenCount, byteCount: filledCount - writtenCount), count > 0
    else { return false }
    writtenCount += count
    if writtenCount == filledCount {
      filled = nil
      writtenCount = 0
    }
    return true
  }
}
