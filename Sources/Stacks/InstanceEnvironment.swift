import Channel
import Driver
import Glibc
import Memory

/// What a stack instance is given: its interface, its memory and its ends of the channel.
public final class InstanceEnvironment {
  public var macAddress: [UInt8] = []
  public var mtu = 1500
  public var offloads: NetworkInterface.Offloads = []
  /// In host byte order, with its prefix length.
  public var address: UInt32 = 0
  public var prefixLength = 24
  public var gateway: UInt32 = 0
  public var httpPort: UInt16 = 0
  /// A task instead of a server: fetch so many bytes from this address, check them, end.
  public var client: (address: UInt32, port: UInt16, byteCount: UInt64)?
  /// Where the transmit part begins, in bytes from the arena's start.
  public let receiveBytes: Int
  public let queues: Int
  public let arena: Arena
  public let channel: ChannelMemory
  public let counters: CounterPage

  /// Descriptors that an instance is started with.
  public enum Inherited {
    public static let control: Int32 = 3
    public static let arena: Int32 = 4
    public static let channel: Int32 = 5
    public static let counters: Int32 = 6
    public static let ownDoorbell: Int32 = 7
    public static let tap: Int32 = 8
    /// Rung for the host's first queue; the others follow.
    public static let firstPeerDoorbell: Int32 = 9
  }

  /// Entries of an instance's counter page.
  public static let counterCapacity = 64

  /// Memory that is already there, and nothing said of the interface yet.
  public init(
    arena: consuming Arena, receiveBytes: Int, channel: consuming ChannelMemory, queues: Int,
    counters: consuming CounterPage
  ) {
    self.arena = arena
    self.receiveBytes = receiveBytes
    self.channel = channel
    self.queues = queues
    self.counters = counters
  }

  /// What the supervisor said, with the descriptors that it left.
  public convenience init(_ arguments: InstanceArguments) throws(StackError) {
    guard let layout = ChannelLayout(queues: arguments.channelQueues, slots: arguments.channelSlots)
    else { throw StackError("there is no channel of \(arguments.channelSlots) slots") }
    let arena = try asStackError { () throws(MemoryError) -> Arena in
      try Arena(
        adopting: Inherited.arena, byteCount: arguments.arenaBytes, at: arguments.arenaAddress)
    }
    let channel = try asStackError { () throws(ChannelError) -> ChannelMemory in
      try ChannelMemory(adopting: Inherited.channel, layout: layout)
    }
    let counters = try asStackError { () throws(MemoryError) -> CounterPage in
      try CounterPage(
        adopting: Inherited.counters, capacity: Self.counterCapacity, writable: true)
    }
    self.init(
      arena: arena, receiveBytes: arguments.receiveBytes, channel: channel,
      queues: arguments.queues, counters: counters)
    macAddress = arguments.macAddress
    mtu = arguments.mtu
    offloads = arguments.offloads
    address = arguments.address
    prefixLength = arguments.prefixLength
    gateway = arguments.gateway
    httpPort = arguments.httpPort
    client = arguments.client
  }
}

/// Why an instance cannot go on: one line.
public struct StackError: Error, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }

  @inline(never) @usableFromInline
  init(brokenBy error: ChannelError) {
    description = "the driver host broke the channel's rules: \(error)"
  }
}

func asStackError<R: ~Copyable, E: Error>(_ body: () throws(E) -> R) throws(StackError) -> R {
  do throws(E) {
    return try body()
  } catch {
    throw StackError("\(error)")
  }
}
