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

  public init(_ arguments: InstanceArguments) throws(StackError) {
    guard let layout = ChannelLayout(queues: arguments.channelQueues, slots: arguments.channelSlots)
    else { throw StackError("there is no channel of \(arguments.channelSlots) slots") }
    arena = try asStackError { () throws(MemoryError) -> Arena in
      try Arena(
        adopting: Inherited.arena, byteCount: arguments.arenaBytes, at: arguments.arenaAddress)
    }
    channel = try asStackError { () throws(ChannelError) -> ChannelMemory in
      try ChannelMemory(adopting: Inherited.channel, layout: layout)
    }
    counters = try asStackError { () throws(MemoryError) -> CounterPage in
      try CounterPage(
        adopting: Inherited.counters, capacity: Self.counterCapacity, writable: true)
    }
    receiveBytes = arguments.receiveBytes
    queues = arguments.queues
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

extension InstanceEnvironment {
  /// Where received packets lie.
  public var receivePart: ReceivePart { ReceivePart(start: arena.address, byteCount: receiveBytes) }
}

/// The part of an arena in which received packets lie.
@frozen
public struct ReceivePart {
  // Invariant: mapped as long as the instance's environment.
  @usableFromInline let start: UnsafeMutableRawPointer
  @usableFromInline let byteCount: Int

  init(start: UnsafeMutableRawPointer, byteCount: Int) {
    self.start = start
    self.byteCount = byteCount
  }

  /// A received piece's bytes; nil where it does not lie here.
  @inlinable
  public func bytes(of piece: Descriptor) -> UnsafeMutableRawBufferPointer? {
    guard piece.position &+ UInt64(piece.length) <= UInt64(byteCount) else { return nil }
    return UnsafeMutableRawBufferPointer(
      start: start + Int(piece.position), count: Int(piece.length))
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
