import CLwIP
import Stacks

/// A small HTTP/1.1 server on lwIP: `/` says what it is, `/bytes/N` streams N bytes of ``PatternContent``.
///
/// Bodies are written once, into segments of the arena, and sent from there.
final class HTTPServer {
  private let stack: LwIPInterface
  private var connections: [ObjectIdentifier: HTTPConnection] = [:]
  static let connectionLimit = 200

  init(_ stack: LwIPInterface, port: UInt16) throws(StackError) {
    self.stack = stack
    guard let listener = martlet_listen(port) else {
      throw StackError("lwIP cannot listen on port \(port)")
    }
    tcp_arg(listener, Unmanaged.passUnretained(self).toOpaque())
    tcp_accept(listener) { argument, connection, error in
      guard let argument, let connection, error == err_t(ERR_OK.rawValue) else {
        return err_t(ERR_VAL.rawValue)
      }
      return Unmanaged<HTTPServer>.fromOpaque(argument).takeUnretainedValue().accept(connection)
    }
  }

  private func accept(_ control: UnsafeMutablePointer<tcp_pcb>) -> err_t {
    guard connections.count < Self.connectionLimit else {
      tcp_abort(control)
      return err_t(ERR_ABRT.rawValue)
    }
    let connection = HTTPConnection(control, stack)
    connections[ObjectIdentifier(connection)] = connection
    return err_t(ERR_OK.rawValue)
  }

  /// Lets every connection send what it can; drops those that have ended.
  /// - Returns: whether any did something.
  func serve() -> Bool {
    var worked = false
    for (key, connection) in connections {
      if connection.send() { worked = true }
      if connection.hasEnded { connections[key] = nil }
    }
    return worked
  }
}
