import Channel
import Driver
import Glibc

/// The command line of a stack instance; everything else comes as descriptors.
public struct InstanceArguments {
  public var stack = ""
  var macAddress: [UInt8] = []
  var mtu = 1500
  var offloads: NetworkInterface.Offloads = []
  public var mode = PollMode.adaptive
  var queues = 1
  var channelQueues = 1
  var channelSlots = 4096
  var arenaBytes = 0
  var receiveBytes = 0
  /// Where the arena has to be mapped; nil for anywhere.
  var arenaAddress: UInt?
  public var address: UInt32 = 0
  public var prefixLength = 24
  public var gateway: UInt32 = 0
  public var httpPort: UInt16 = 0
  public var client: (address: UInt32, port: UInt16, byteCount: UInt64)?

  /// - Parameter arguments: without the program's name: `--name value` pairs.
  public init(_ arguments: [String]) throws(StackError) {
    var index = 0
    while index < arguments.count {
      let name = arguments[index]
      guard index + 1 < arguments.count else { throw StackError("\(name) lacks its value") }
      try set(name, arguments[index + 1])
      index += 2
    }
    guard receiveBytes > 0, receiveBytes < arenaBytes, macAddress.count == 6 else {
      throw StackError("martlet-stack is started by `martlet run`, which says what memory there is")
    }
  }

  private mutating func set(_ name: String, _ value: String) throws(StackError) {
    switch name {
    case "--stack": stack = value
    case "--mac":
      guard let address = MACAddress(value) else { throw Self.bad(name, value) }
      macAddress = address.array
    case "--mtu": mtu = try Self.number(name, value)
    case "--offloads": offloads = .init(rawValue: try Self.number(name, value))
    case "--mode":
      guard let chosen = PollMode(rawValue: value) else { throw Self.bad(name, value) }
      mode = chosen
    case "--queues": queues = try Self.number(name, value)
    case "--channel-queues": channelQueues = try Self.number(name, value)
    case "--channel-slots": channelSlots = try Self.number(name, value)
    case "--arena-bytes": arenaBytes = try Self.number(name, value)
    case "--arena-address": arenaAddress = try Self.number(name, value) as UInt
    case "--receive-bytes": receiveBytes = try Self.number(name, value)
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
