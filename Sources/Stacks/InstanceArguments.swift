import Channel
import Glibc

/// The command line of a stack instance: what the application wants. What the instance is given comes with its welcome.
public struct InstanceArguments: Sendable {
  /// The stack's name.
  public var stack = ""
  /// When the instance polls and when it sleeps.
  public var mode = PollMode.adaptive
  /// In host byte order, with its prefix length; 0 for none.
  public var address: UInt32 = 0
  /// Of the network that the address is in.
  public var prefixLength = 24
  /// In host byte order; 0 for none.
  public var gateway: UInt32 = 0
  /// Of lwIP's HTTP server; 0 for none.
  public var httpPort: UInt16 = 0
  /// A task instead of a server: fetch so many bytes from this address, check them, end.
  public var client: (address: UInt32, port: UInt16, byteCount: UInt64)?
  /// The kernel stack's interface: an inherited descriptor; -1 for other stacks.
  public var tap: Int32 = -1

  /// - Parameter arguments: without the program's name: `--name value` pairs.
  public init(_ arguments: [String]) throws(StackError) {
    var index = 0
    while index < arguments.count {
      let name = arguments[index]
      guard index + 1 < arguments.count else { throw StackError("\(name) lacks its value") }
      try set(name, arguments[index + 1])
      index += 2
    }
  }

  private mutating func set(_ name: String, _ value: String) throws(StackError) {
    switch name {
    case "--stack": stack = value
    case "--mode":
      guard let chosen = PollMode(rawValue: value) else { throw Self.bad(name, value) }
      mode = chosen
    case "--tap": tap = try Self.number(name, value)
    case "--http": httpPort = try Self.number(name, value)
    case "--gateway": gateway = try Self.address(name, value)
    case "--address":
      let parts = value.split(separator: "/")
      guard parts.count == 2, let length = Int(parts[1]), (1...32).contains(length) else {
        throw Self.bad(name, value)
      }
      address = try Self.address(name, String(parts[0]))
      prefixLength = length
    case "--fetch":
      // ADDRESS:PORT:BYTES
      let parts = value.split(separator: ":")
      guard parts.count == 3 else { throw Self.bad(name, value) }
      client = (
        try Self.address(name, String(parts[0])), try Self.number(name, String(parts[1])),
        try Self.number(name, String(parts[2]))
      )
    default: throw StackError("\(name) is not an option of martlet-stack")
    }
  }

  private static func number<N: FixedWidthInteger>(
    _ name: String, _ text: String
  ) throws(StackError) -> N {
    guard let value = N(text) else { throw bad(name, text) }
    return value
  }

  private static func address(_ name: String, _ text: String) throws(StackError) -> UInt32 {
    var parsed = in_addr()
    guard inet_pton(AF_INET, text, &parsed) == 1 else { throw bad(name, text) }
    return UInt32(bigEndian: parsed.s_addr)
  }

  private static func bad(_ name: String, _ value: String) -> StackError {
    StackError("\(value) is no value of \(name)")
  }
}
