import CLinux
import Glibc
import Testing

@testable import Statistics

@Suite struct HTTPRequestTests {
  private func read(_ text: String) -> HTTPRequest.Reading { HTTPRequest.read(Array(text.utf8)) }

  @Test func aRequestIsRead() {
    #expect(
      read("GET /metrics?x=1 HTTP/1.1\r\nHost: localhost:9464\r\nAccept: */*\r\n\r\n")
        == .request(HTTPRequest(isHead: false, path: "/metrics", host: "localhost:9464")))
    #expect(
      read("HEAD / HTTP/1.0\r\n\r\n")
        == .request(HTTPRequest(isHead: true, path: "/", host: "")))
  }

  @Test func everyStartOfARequestIsIncomplete() {
    let request = Array("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8)
    for count in 0..<request.count {
      #expect(HTTPRequest.read(Array(request[..<count])) == .incomplete)
    }
  }

  @Test(arguments: [
    ("GET /metrics HTTP/1.1\r\n\r\n", 400),  // no host
    ("GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET  /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET metrics HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /metrics HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET /metrics HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
    ("GET /metrics HTTP/1.1\nHost: a\n\r\n\r\n", 400),
    ("GET /metrics HTTP/1.1\r\nHost: a\u{1}\r\n\r\n", 400),
    ("GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n", 505), ("nonsense\r\n\r\n", 400),
    ("POST /metrics HTTP/1.1\r\nHost: a\r\n\r\n", 405), ("\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nA: " + String(repeating: "x", count: 9000), 431),
  ])
  func whatIsNotClearlyRightIsRefused(_ text: String, _ status: Int) {
    #expect(read(text) == .refused(status))
  }
}

@Suite struct MetricsServerTests {
  /// What a client reads that says `request`, while the server has turns.
  private func answer(to request: String, _ server: inout MetricsServer) -> String {
    let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    defer { close(client) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = server.port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    let connected = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(client, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    #expect(connected == 0)
    let bytes = Array(request.utf8)
    #expect(send(client, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
    var answer: [UInt8] = []
    for _ in 0..<100 {
      server.turn(milliseconds: 20) { HTTPAnswer(status: 200, body: "the page\n") }
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = recv(client, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if count == 0 { break }
      if count > 0 { answer += buffer[..<count] }
    }
    return String(decoding: answer, as: UTF8.self)
  }

  @Test func thePageIsServedToThisMachineOnly() throws {
    var server = try MetricsServer(ListenAddress("127.0.0.1:0")!)
    let page = answer(to: "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", &server)
    #expect(page.hasPrefix("HTTP/1.1 200 OK\r\n") && page.hasSuffix("\r\n\r\nthe page\n"))
    #expect(
      page.contains("\r\nContent-Length: 9\r\n") && page.contains("\r\nConnection: close\r\n"))
    let head = answer(to: "HEAD /metrics HTTP/1.1\r\nHost: localhost:1\r\n\r\n", &server)
    #expect(head.hasPrefix("HTTP/1.1 200 OK\r\n") && head.hasSuffix("\r\n\r\n"))
    #expect(head.contains("\r\nContent-Length: 9\r\n"))
    let elsewhere = answer(to: "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", &server)
    #expect(elsewhere.hasPrefix("HTTP/1.1 421 "))
    let missing = answer(to: "GET /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", &server)
    #expect(missing.hasPrefix("HTTP/1.1 404 "))
    #expect(
      answer(to: "PUT /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", &server)
        .contains("\r\nAllow: GET, HEAD\r\n"))
  }

  @Test func anAddressIsReadAndKnownForWhatItIs() {
    #expect(ListenAddress("127.0.0.1:9464")?.isLoopback == true)
    #expect(ListenAddress("[::1]:9464")?.isLoopback == true)
    #expect(ListenAddress("0.0.0.0:9464")?.isLoopback == false)
    #expect(ListenAddress("[::]:9464")?.isLoopback == false)
    for text in ["127.0.0.1", "localhost:1", "::1:9464", "127.0.0.1:65536", ":1", "[127.0.0.1]:1"] {
      #expect(ListenAddress(text) == nil, "\(text)")
    }
  }
}
