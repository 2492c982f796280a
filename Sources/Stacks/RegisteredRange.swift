import Channel
import Glibc
import Handles
import Memory

/// An application's own memory, from which an instance sends without a copy: what lies at `address` in this process has
/// `position` in descriptors.
///
/// Packets from it are sent like those from the arena's transmit part; the device only reads it. Where the handle ends
/// (``InstanceEnvironment/isRegistered(_:)``), packets from it are dropped and their tags come back.
@frozen
public struct RegisteredRange: Sendable, Equatable {
  /// By what the instance and the supervisor call it.
  public let handle: HandleID
  /// The first byte, in bytes from the start of the instance's arena.
  public let position: UInt64
  /// How many bytes.
  public let byteCount: Int

  /// A piece of a packet.
  /// - Parameters:
  ///   - offset: of its first byte, from the range's.
  ///   - length: in bytes; the piece has to lie in the range.
  ///   - flags: ``/Memory/Descriptor/Flags/more`` where it is not the packet's last.
  ///   - tag: comes back when the device has done with the packet.
  @inlinable
  public func piece(
    at offset: Int, length: Int, flags: Descriptor.Flags = [], tag: UInt16 = 0
  ) -> Descriptor {
    precondition(offset >= 0 && length > 0 && length <= byteCount && offset <= byteCount - length)
    let place = position &+ UInt64(offset)
    let unit = UInt64(Descriptor.unit)
    return Descriptor(
      segment: UInt32(truncatingIfNeeded: place / unit),
      offset: UInt32(truncatingIfNeeded: place % unit), length: UInt32(length), flags: flags,
      tag: tag)
  }
}

extension InstanceEnvironment {
  /// Makes memory of this process the device's to read, so that the instance can send from it. It stays the caller's: it
  /// is not to be given up before ``unregister(_:_:)`` has returned.
  /// - Parameters:
  ///   - memory: all of it, of ordinary or huge pages.
  ///   - broker: a connection to `PATH.handles`, where `PATH` is the supervisor's socket. The registration ends with it.
  ///   - commands: the instance's command channel. The call waits for its answer, 5 seconds at most.
  /// - Throws: why it is refused.
  public func register(
    _ memory: borrowing Arena, through broker: inout HandleClient, _ commands: inout CommandClient
  ) throws(StackError) -> RegisteredRange {
    let handle: HandleID
    do throws(HandleError) {
      handle = try broker.create(
        over: memory, rights: .readWrite, isServed: true,
        receiver: .process(getpid(), user: geteuid())
      ).id
    } catch {
      throw StackError("\(error)")
    }
    return try register(handle, &commands)
  }

  /// The same for memory that its owner has made a handle for, with this process or its user as the receiver.
  /// - Throws: why it is refused.
  public func register(
    _ handle: HandleID, _ commands: inout CommandClient
  ) throws(StackError) -> RegisteredRange {
    let id = MemoryHandleID(high: handle.high, low: handle.low)
    let answer: MemoryRegistration
    do throws(CommandError) { answer = try commands.register(id) } catch {
      throw StackError("memory cannot be registered: \(error)")
    }
    guard answer.byteCount > 0, answer.byteCount <= UInt64(Welcome.maximumArenaBytes),
      answer.position <= UInt64(Welcome.maximumArenaBytes)
    else { throw StackError("the supervisor registers memory where none can be") }
    let range = RegisteredRange(
      handle: handle, position: answer.position, byteCount: Int(answer.byteCount))
    registered.append(range)
    return range
  }

  /// Gives memory back to its owner: when this returns, neither the device nor the driver host has any of it, also what
  /// was on its way.
  /// - Throws: why not.
  public func unregister(
    _ range: RegisteredRange, _ commands: inout CommandClient
  ) throws(StackError) {
    registered.removeAll { $0 == range }
    do throws(CommandError) {
      try commands.unregister(MemoryHandleID(high: range.handle.high, low: range.handle.low))
    } catch {
      throw StackError("registered memory is not given back: \(error)")
    }
  }

  /// Whether the supervisor has not said that the range's handle has ended.
  public func isRegistered(_ range: RegisteredRange) -> Bool { registered.contains(range) }
}
