import CLwIP
import Channel
import Driver
import Memory
import Stacks

/// lwIP on a channel: received segments are wrapped where they lie, sent data goes by reference.
///
/// lwIP's state is global: one instance a process, one thread.
public final class LwIPInstance: StackInstance {
  private let stack: LwIPInterface
  private let server: HTTPServer?
  private let client: PatternClient?

  /// - Parameter arguments: addresses and the application.
  public init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel
  ) throws(StackError) {
    let stack = try LwIPInterface(environment, arguments, channel: channel)
    self.stack = stack
    server = arguments.httpPort > 0 ? try HTTPServer(stack, port: arguments.httpPort) : nil
    client = arguments.client.map { PatternClient(stack, $0) }
  }

  public func receive(_ burst: inout Burst, queue: Int) {
    var at = 0
    while at < burst.count {
      var end = at
      while burst[end].flags.contains(.more) && end + 1 < burst.count { end += 1 }
      stack.input(burst, at...end, queue: queue)
      at = end + 1
    }
  }

  public func completed(_ burst: inout Burst) {
    for index in 0..<burst.count { stack.complete(tag: burst[index].tag) }
  }

  public func service() throws(StackError) -> Bool {
    sys_check_timeouts()
    let worked = server?.serve() ?? false
    client?.step()
    let moved = stack.flush()
    return worked || moved
  }

  public var nextDeadline: Int32 {
    if client != nil { return 1 }
    let sleep = sys_timeouts_sleeptime()
    return Int32(min(sleep, 1000))
  }

  public var exitCode: Int32? { client?.exitCode }
}
