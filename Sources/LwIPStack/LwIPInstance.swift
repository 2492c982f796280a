import CLwIP
import Channel
import Driver
import Memory
import Stacks

/// What runs on lwIP in the instance's own process and thread.
public protocol LwIPApplication: AnyObject {
  /// Does what is due, once a turn of the loop.
  /// - Returns: whether there was anything to do.
  func serve() -> Bool
  /// Milliseconds until ``serve()`` has something to do by itself.
  var nextDeadline: Int32 { get }
  /// The application is done, and the instance with it; nil while it goes on.
  var exitCode: Int32? { get }
}

/// lwIP on a channel: received segments are wrapped where they lie, sent data goes by reference.
///
/// lwIP's state is global: one instance a process, one thread.
public final class LwIPInstance: StackInstance {
  private let stack: LwIPInterface
  private let applications: [any LwIPApplication]

  /// A stack with applications of one's own.
  /// - Parameters:
  ///   - arguments: the stack's addresses.
  ///   - applications: makes them, on the stack's interface.
  public init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel,
    applications: (LwIPInterface) throws(StackError) -> [any LwIPApplication]
  ) throws(StackError) {
    stack = try LwIPInterface(environment, arguments, channel: channel)
    self.applications = try applications(stack)
  }

  /// A stack with what the arguments ask for: the HTTP server, the client, both or neither.
  public convenience init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel
  ) throws(StackError) {
    try self.init(environment, arguments, channel: channel) {
      (stack) throws(StackError) -> [any LwIPApplication] in
      var applications: [any LwIPApplication] = []
      if arguments.httpPort > 0 {
        applications.append(try HTTPServer(stack, port: arguments.httpPort))
      }
      if let task = arguments.client { applications.append(PatternClient(stack, task)) }
      return applications
    }
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
    var worked = stack.buffers.resumeWaiting()
    for application in applications where application.serve() { worked = true }
    let moved = stack.flush()
    if stack.buffers.isExhausted { try stack.environment.askForMemory(Self.growth) }
    return worked || moved
  }

  public var nextDeadline: Int32 {
    let sleep = Int32(min(sys_timeouts_sleeptime(), 1000))
    return applications.reduce(sleep) { min($0, $1.nextDeadline) }
  }

  /// Bytes that are asked for when segments have run out.
  private static let growth = 32 << 20

  public func memoryDidGrow(to byteCount: Int) { stack.grow(to: byteCount) }
  public func memoryWillShrink(to byteCount: Int) -> Bool { stack.beginShrink(to: byteCount) }
  public var memoryEndInUse: Int { stack.buffers.freeEnd }
  public func memoryDidShrink(to byteCount: Int) { stack.shrink(to: byteCount) }

  public var exitCode: Int32? {
    for application in applications { if let code = application.exitCode { return code } }
    return nil
  }
}
