import Stacks

/// A small HTTP/1.1 server on lwIP: `/` says what it is, `/bytes/N` streams N bytes of ``PatternContent``.
///
/// Bodies are written once, into segments of the arena, and sent from there.
final class HTTPServer: LwIPApplication {
  private var connections: [ObjectIdentifier: HTTPConnection] = [:]
  static let connectionLimit = 200

  init(_ stack: LwIPInterface, port: UInt16) throws(StackError) {
    try stack.listen(port: port) { [unowned self, unowned stack] connection in
      guard connections.count < Self.connectionLimit else { return nil }
      let served = HTTPConnection(connection, stack)
      connections[ObjectIdentifier(served)] = served
      return served
    }
  }

  /// Lets every connection send what it can; drops those that have ended.
  func serve() -> Bool {
    var worked = false
    for (key, connection) in connections {
      if connection.send() { worked = true }
      if connection.hasEnded { connections[key] = nil }
    }
    return worked
  }

  /// Acknowledgements drive it.
  var nextDeadline: Int32 { .max }
  var exitCode: Int32? { nil }
}
