import CLwIP
import Memory
import Stacks

/// One connection of the server.
final class HTTPConnection {
  private var control: UnsafeMutablePointer<tcp_pcb>?
  private let stack: LwIPInterface
  private var request: [UInt8] = []
  /// The body that is still to be made: pattern from `offset` to `end`.
  private var offset: UInt64 = 0
  private var end: UInt64 = 0
  /// What lwIP has been given and the peer has not acknowledged, in order: a reference each.
  private var unacknowledged: [(segment: UInt32, byteCount: Int)] = []
  private var firstUnacknowledged = 0
  /// A segment that is filled but not wholly written yet.
  private var filled: (segment: Segment, at: Int, byteCount: Int)?
  private var closesAfter = false
  private(set) var hasEnded = false

  private static let requestLimit = 8192
  private static let pieceBytes = 64 << 10

  init(_ control: UnsafeMutablePointer<tcp_pcb>, _ stack: LwIPInterface) {
    self.control = control
    self.stack = stack
    martlet_disable_nagle(control)
    tcp_arg(control, Unmanaged.passUnretained(self).toOpaque())
    tcp_recv(control) { argument, _, packet, _ in
      HTTPConnection.from(argument).received(packet)
      return err_t(ERR_OK.rawValue)
    }
    tcp_sent(control) { argument, _, byteCount in
      HTTPConnection.from(argument).acknowledged(Int(byteCount))
      return err_t(ERR_OK.rawValue)
    }
    // The control block is gone when this is called.
    tcp_err(control) { argument, _ in HTTPConnection.from(argument).end(closing: false) }
  }

  private static func from(_ argument: UnsafeMutableRawPointer?) -> HTTPConnection {
    Unmanaged<HTTPConnection>.fromOpaque(argument!).takeUnretainedValue()
  }

  // MARK: Requests

  private func received(_ packet: UnsafeMutablePointer<pbuf>?) {
    guard let packet else {
      // The peer sends no more: what it asked for it still gets.
      closesAfter = true
      return
    }
    var piece: UnsafeMutablePointer<pbuf>? = packet
    while let current = piece, request.count <= Self.requestLimit {
      request += UnsafeRawBufferPointer(
        start: current.pointee.payload, count: Int(current.pointee.len))
      piece = current.pointee.next
    }
    if let control { tcp_recved(control, packet.pointee.tot_len) }
    pbuf_free(packet)
  }

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

  /// A short text, written into a segment of its own.
  private func write(_ text: String) {
    let bytes = Array(text.utf8)
    guard let segment = stack.pool.allocate(byteCount: bytes.count) else {
      return end(closing: true)
    }
    stack.pool.address(of: segment).copyMemory(from: bytes, byteCount: bytes.count)
    filled = (segment, 0, bytes.count)
  }

  // MARK: Sending

  /// Does what can be done now.
  /// - Returns: whether it was anything.
  func send() -> Bool {
    guard let control else { return false }
    var worked = false
    while true {
      if filled != nil {
        if !writeFilled(control) { break }
        worked = true
      } else if offset < end {
        guard fillNext() else { break }
        worked = true
      } else if let (line, head) = nextRequest() {
        answer(line, head)
        worked = true
      } else {
        break
      }
      if self.control == nil { return true }
    }
    if request.count > Self.requestLimit && filled == nil {
      request.removeAll()
      respond("431 Request Header Fields Too Large", body: "", closing: true)
      return true
    }
    if worked { tcp_output(control) }
    let isDone = filled == nil && offset == end && firstUnacknowledged == unacknowledged.count
    if closesAfter && isDone { end(closing: true) }
    return worked
  }

  private func fillNext() -> Bool {
    let count = Int(min(end - offset, UInt64(Self.pieceBytes)))
    guard let segment = stack.pool.allocate(byteCount: count) else { return false }
    PatternContent.fill(
      UnsafeMutableRawBufferPointer(start: stack.pool.address(of: segment), count: count),
      offset: offset)
    offset += UInt64(count)
    filled = (segment, 0, count)
    return true
  }

  /// Gives lwIP as much of the filled segment as it takes. A further part of the same segment extends what it was
  /// given before (one reference); the segment's own reference goes with its last part.
  private func writeFilled(_ control: UnsafeMutablePointer<tcp_pcb>) -> Bool {
    guard let (segment, at, byteCount) = filled else { return false }
    let room = Int(martlet_send_room(control))
    let count = min(byteCount - at, min(room, 0xffff))
    if count == 0 { return false }
    let address = stack.pool.address(of: segment) + at
    guard tcp_write(control, address, UInt16(count), 0) == err_t(ERR_OK.rawValue) else {
      return false
    }
    if unacknowledged.count > firstUnacknowledged,
      unacknowledged[unacknowledged.count - 1].segment == segment.unit
    {
      unacknowledged[unacknowledged.count - 1].byteCount += count
    } else {
      stack.pool.retain(segment.unit)
      unacknowledged.append((segment.unit, count))
    }
    if at + count == byteCount {
      stack.pool.release(segment.unit)
      filled = nil
    } else {
      filled = (segment, at + count, byteCount)
    }
    return true
  }

  private func acknowledged(_ byteCount: Int) {
    var left = byteCount
    while left > 0 && firstUnacknowledged < unacknowledged.count {
      let taken = min(left, unacknowledged[firstUnacknowledged].byteCount)
      unacknowledged[firstUnacknowledged].byteCount -= taken
      left -= taken
      if unacknowledged[firstUnacknowledged].byteCount == 0 {
        stack.pool.release(unacknowledged[firstUnacknowledged].segment)
        firstUnacknowledged += 1
      }
    }
    if firstUnacknowledged > 256 {
      unacknowledged.removeFirst(firstUnacknowledged)
      firstUnacknowledged = 0
    }
  }

  /// Lets go of everything. What the device still reads has references of its own.
  private func end(closing: Bool) {
    if closing, let control {
      tcp_arg(control, nil)
      tcp_recv(control, nil)
      tcp_sent(control, nil)
      tcp_err(control, nil)
      if tcp_close(control) != err_t(ERR_OK.rawValue) { tcp_abort(control) }
    }
    control = nil
    if let filled { stack.pool.release(filled.segment.unit) }
    filled = nil
    for entry in unacknowledged[firstUnacknowledged...] { stack.pool.release(entry.segment) }
    unacknowledged = []
    firstUnacknowledged = 0
    offset = end
    hasEnded = true
  }
}
