/// The head of a request by HTTP/1.1 (RFC 9112), as far as a server needs it that has one page and takes no content. What is
/// not clearly right is refused.
public struct HTTPRequest: Equatable, Sendable {
  public var isHead: Bool
  /// Without a query.
  public var path: String
  /// Empty where an HTTP/1.0 request names none.
  public var host: String

  /// The longest head, in bytes.
  public static let maximumBytes = 8192

  /// What the bytes of a connection are so far.
  public enum Reading: Equatable, Sendable {
    case incomplete
    case request(HTTPRequest)
    /// To be answered with this status, and closed.
    case refused(Int)
  }

  /// - Parameter bytes: all that has come.
  public static func read(_ bytes: [UInt8]) -> Reading {
    guard let end = endOfHead(bytes) else {
      return bytes.count > maximumBytes ? .refused(431) : .incomplete
    }
    if end > maximumBytes { return .refused(431) }
    guard let lines = lines(bytes[..<end]), let first = lines.first else { return .refused(400) }
    let words = first.split(separator: " ", omittingEmptySubsequences: false)
    guard words.count == 3, words[0].utf8.allSatisfy(isTokenByte), !words[0].isEmpty else {
      return .refused(400)
    }
    guard words[2] == "HTTP/1.1" || words[2] == "HTTP/1.0" else {
      return .refused(words[2].hasPrefix("HTTP/") ? 505 : 400)
    }
    guard let fields = fields(lines.dropFirst()) else { return .refused(400) }
    let hosts = fields.filter { $0.name == "host" }
    guard hosts.count == 1 || (hosts.isEmpty && words[2] == "HTTP/1.0") else {
      return .refused(400)
    }
    for (name, value) in fields {
      if name == "transfer-encoding" || (name == "content-length" && value != "0") {
        return .refused(400)
      }
    }
    guard words[0] == "GET" || words[0] == "HEAD" else { return .refused(405) }
    guard words[1].hasPrefix("/") else { return .refused(400) }
    return .request(
      HTTPRequest(
        isHead: words[0] == "HEAD", path: String(words[1].prefix { $0 != "?" }),
        host: hosts.first?.value ?? ""))
  }

  /// - Returns: where the empty line ends that ends a head; nil where it has not come.
  private static func endOfHead(_ bytes: [UInt8]) -> Int? {
    let limit = min(bytes.count, maximumBytes + 4)
    var at = 0
    while at + 4 <= limit {
      if bytes[at] == 13, bytes[at + 1] == 10, bytes[at + 2] == 13, bytes[at + 3] == 10 {
        return at + 4
      }
      at += 1
    }
    return nil
  }

  /// - Returns: nil where a byte is none that a head may have.
  private static func lines(_ head: ArraySlice<UInt8>) -> [String]? {
    var lines: [String] = []
    var line: [UInt8] = []
    var at = head.startIndex
    while at < head.endIndex {
      let byte = head[at]
      if byte == 13 {
        guard at + 1 < head.endIndex, head[at + 1] == 10 else { return nil }
        lines.append(String(decoding: line, as: UTF8.self))
        line = []
        at += 2
      } else {
        guard byte == 9 || (byte >= 32 && byte < 127) else { return nil }
        line.append(byte)
        at += 1
      }
    }
    // The last is the empty one.
    return lines.dropLast()
  }

  private static func fields(
    _ lines: ArraySlice<String>
  ) -> [(name: String, value: String)]? {
    var fields: [(name: String, value: String)] = []
    for line in lines {
      guard let colon = line.firstIndex(of: ":"), colon > line.startIndex,
        line[..<colon].utf8.allSatisfy(isTokenByte)
      else { return nil }
      let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
      let trailing = value.reversed().prefix { $0 == " " || $0 == "\t" }.count
      fields.append((line[..<colon].lowercased(), String(value.dropLast(trailing))))
    }
    return fields
  }

  /// RFC 9110, section 5.6.2.
  private static func isTokenByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
    }
  }
}

/// An answer with its head. The connection is closed behind it.
public struct HTTPAnswer: Equatable, Sendable {
  public var status: Int
  public var contentType: String
  public var body: String

  public init(status: Int, contentType: String = "text/plain; charset=utf-8", body: String) {
    self.status = status
    self.contentType = contentType
    self.body = body
  }

  /// What a status means, as the answer to what cannot be served.
  public static func refusal(_ status: Int) -> HTTPAnswer {
    HTTPAnswer(status: status, body: "\(reason(status))\n")
  }

  private static func reason(_ status: Int) -> String {
    switch status {
    case 200: "OK"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 421: "Misdirected Request"
    case 431: "Request Header Fields Too Large"
    case 503: "Service Unavailable"
    case 505: "HTTP Version Not Supported"
    default: "Bad Request"
    }
  }

  /// - Parameter isHead: without the body.
  public func bytes(isHead: Bool = false) -> [UInt8] {
    var head = "HTTP/1.1 \(status) \(Self.reason(status))\r\nContent-Type: \(contentType)\r\n"
    head += "Content-Length: \(body.utf8.count)\r\nCache-Control: no-store\r\n"
    if status == 405 { head += "Allow: GET, HEAD\r\n" }
    return Array((head + "Connection: close\r\n\r\n" + (isHead ? "" : body)).utf8)
  }
}
