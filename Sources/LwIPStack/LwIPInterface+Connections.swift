import CLwIP
import Stacks

extension LwIPInterface {
  /// Listens on a port of all the interface's addresses.
  /// - Parameter accept: gets each new connection and says who handles it; nil resets it.
  /// - Throws: where the port is taken.
  public func listen(
    port: UInt16, accept: @escaping (ZeroCopyConnection) -> (any ConnectionHandler)?
  ) throws(StackError) {
    guard let control = martlet_listen(port) else {
      throw StackError("lwIP cannot listen on port \(port)")
    }
    let listener = Listener(self, accept)
    listeners.append(listener)
    tcp_arg(control, Unmanaged.passUnretained(listener).toOpaque())
    tcp_accept(control) { argument, control, error in
      guard let argument, let control, error == err_t(ERR_OK.rawValue) else {
        return err_t(ERR_VAL.rawValue)
      }
      return Unmanaged<Listener>.fromOpaque(argument).takeUnretainedValue().accept(control)
    }
  }

  /// Connects to an address, in host byte order.
  /// - Returns: the connection, of which the handler hears when it is open.
  public func connect(
    to address: UInt32, port: UInt16, _ handler: any ConnectionHandler
  ) throws(StackError) -> ZeroCopyConnection {
    var result = err_t(ERR_OK.rawValue)
    let control = martlet_connect(
      address, port,
      { argument, _, _ in ZeroCopyConnection.from(argument).connected() }, &result)
    guard let control else { throw StackError("lwIP has no more connections") }
    guard result == err_t(ERR_OK.rawValue) else {
      tcp_abort(control)
      throw StackError("lwIP cannot connect (\(result))")
    }
    let connection = ZeroCopyConnection(control, self, isConnected: false)
    connection.begin(handler)
    return connection
  }
}

/// Accepts the connections of one port. The interface holds it, which lives as long as the process.
final class Listener {
  // Invariant: the interface holds its listeners, so it is there as long as they are.
  private unowned let stack: LwIPInterface
  private let choose: (ZeroCopyConnection) -> (any ConnectionHandler)?

  init(
    _ stack: LwIPInterface, _ choose: @escaping (ZeroCopyConnection) -> (any ConnectionHandler)?
  ) {
    self.stack = stack
    self.choose = choose
  }

  func accept(_ control: UnsafeMutablePointer<tcp_pcb>) -> err_t {
    let connection = ZeroCopyConnection(control, stack, isConnected: true)
    if let handler = choose(connection) {
      connection.begin(handler)
    } else {
      connection.reset()
    }
    return connection.outcome
  }
}
