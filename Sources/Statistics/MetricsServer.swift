import CLinux
import Glibc

/// Serves one page, `/metrics`, by HTTP/1.1: few connections, small requests, an end for everything that takes long. One
/// thread.
public struct MetricsServer: ~Copyable {
  private let listener: Int32
  private let isLoopback: Bool
  private var connections: [Connection] = []

  private struct Connection {
    let socket: Int32
    /// In milliseconds of the monotonic clock.
    let deadline: UInt64
    var received: [UInt8] = []
    /// What is still to be said; nil before there is an answer.
    var answer: ArraySlice<UInt8>?
  }

  private static let maximumConnections = 32
  /// Milliseconds from the start of a connection to its end.
  private static let limit: UInt64 = 5000

  /// Why it cannot listen.
  public struct Failure: Error, CustomStringConvertible {
    public let description: String
  }

  /// - Parameter address: where to listen. Requests to a loopback address must name one as their host.
  public init(_ address: ListenAddress) throws(Failure) {
    listener = address.listen()
    isLoopback = address.isLoopback
    guard listener >= 0 else {
      throw Failure(description: "cannot listen there: \(String(cString: strerror(-listener)))")
    }
  }

  deinit {
    for connection in connections { close(connection.socket) }
    if listener >= 0 { close(listener) }
  }

  /// The port that it listens on: of use where 0 was asked for.
  public var port: UInt16 {
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        getsockname(listener, $0, &length)
      }
    }
    if result != 0 { return 0 }
    // Family first, then the port, for both families.
    return withUnsafeBytes(of: address) {
      UInt16(bigEndian: $0.load(fromByteOffset: 2, as: UInt16.self))
    }
  }

  /// Waits for something to do, and does it.
  /// - Parameters:
  ///   - limit: milliseconds to wait at most.
  ///   - page: makes the page, for each request anew.
  public mutating func turn(milliseconds limit: Int32, _ page: () -> HTTPAnswer) {
    var entries = [
      pollfd(
        fd: connections.count < Self.maximumConnections ? listener : -1, events: Int16(POLLIN),
        revents: 0)
    ]
    for connection in connections {
      let events = connection.answer == nil ? POLLIN : POLLOUT
      entries.append(pollfd(fd: connection.socket, events: Int16(events), revents: 0))
    }
    let now = monotonic_milliseconds()
    let due = connections.map { Int32($0.deadline - min($0.deadline, now)) }.min() ?? limit
    guard poll(&entries, UInt(entries.count), min(due, limit)) >= 0 else { return }
    let end = monotonic_milliseconds()
    for index in connections.indices.reversed() {
      let isDue = end >= connections[index].deadline
      if entries[index + 1].revents == 0 && !isDue { continue }
      var connection = connections[index]
      let goesOn = !isDue && go(on: &connection, page)
      connections[index] = connection
      if !goesOn {
        close(connections[index].socket)
        connections.remove(at: index)
      }
    }
    if entries[0].revents != 0 { accept(at: end) }
  }

  private mutating func accept(at now: UInt64) {
    while connections.count < Self.maximumConnections {
      let socket = linux_accept(listener)
      if socket < 0 { return }
      connections.append(Connection(socket: socket, deadline: now + Self.limit))
    }
  }

  /// - Returns: false where the connection has come to its end.
  private func go(on connection: inout Connection, _ page: () -> HTTPAnswer) -> Bool {
    if connection.answer == nil {
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = recv(connection.socket, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if count < 0 { return errno == EAGAIN || errno == EINTR }
      if count == 0 { return false }
      connection.received += buffer[..<count]
      guard let answer = answer(to: connection.received, page) else { return true }
      connection.answer = answer[...]
    }
    guard let rest = connection.answer else { return true }
    let sent = rest.withUnsafeBytes {
      send(connection.socket, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
    if sent < 0 { return errno == EAGAIN || errno == EINTR }
    connection.answer = rest.dropFirst(sent)
    if sent < rest.count { return true }
    // What has come and is not read would keep the peer from reading the answer.
    var buffer = [UInt8](repeating: 0, count: 16384)
    shutdown(connection.socket, Int32(SHUT_WR))
    _ = recv(connection.socket, &buffer, buffer.count, Int32(MSG_DONTWAIT))
    return false
  }

  /// - Returns: nil where the request is not here as a whole.
  private func answer(to bytes: [UInt8], _ page: () -> HTTPAnswer) -> [UInt8]? {
    switch HTTPRequest.read(bytes) {
    case .incomplete: return nil
    case .refused(let status): return HTTPAnswer.refusal(status).bytes()
    case .request(let request):
      if isLoopback, !ListenAddress.isLoopbackName(request.host) {
        return HTTPAnswer.refusal(421).bytes(isHead: request.isHead)
      }
      guard request.path == "/metrics" else {
        return HTTPAnswer(status: 404, body: "There is /metrics.\n").bytes(isHead: request.isHead)
      }
      return page().bytes(isHead: request.isHead)
    }
  }
}
