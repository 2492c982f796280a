import Channel
import Glibc
import Memory

/// The memory in which packets are: the arena and the channel of the only instance, or a window for many, at whose start
/// the host's own arena is mapped.
struct HostMemory: ~Copyable {
  let arena: Arena?
  var channel: ChannelMemory?
  var window: MemoryWindow?
  /// All that descriptors may name.
  let range: DMARange

  /// Takes what was inherited.
  init(_ arguments: HostArguments, arena: Int32, channel: Int32) throws(HostError) {
    if arguments.isShared {
      let window = try Self.window(arguments, arena: arena)
      range = DMARange(
        address: window.address, iova: arguments.arenaIOVA, byteCount: window.byteCount)
      self.window = consume window
      self.arena = nil
      self.channel = nil
      return
    }
    let own = try Self.adopt(arena, arguments.arenaBytes, at: arguments.arenaAddress)
    let mapped = try Self.channel(arguments, channel)
    range = DMARange(address: own.address, iova: arguments.arenaIOVA, byteCount: own.byteCount)
    self.arena = consume own
    self.channel = consume mapped
    window = nil
  }

  private static func channel(
    _ arguments: HostArguments, _ descriptor: Int32
  ) throws(HostError) -> ChannelMemory {
    guard let layout = ChannelLayout(queues: arguments.queues, slots: DriverHost.channelSlots)
    else { throw .arguments("there is no channel for \(arguments.queues) queues") }
    do throws(ChannelError) {
      return try ChannelMemory(adopting: descriptor, layout: layout)
    } catch {
      throw .memory(error.description)
    }
  }

  static func record(_ arguments: HostArguments, _ descriptor: Int32) throws(HostError)
    -> HostRecord
  {
    do throws(MemoryError) {
      return try HostRecord(
        adopting: descriptor, queues: arguments.queues,
        receiveBytes: arguments.isShared ? 0 : arguments.receiveBytes)
    } catch {
      throw .memory(error.description)
    }
  }

  static func adopt(
    _ descriptor: Int32, _ byteCount: Int, at address: UInt? = nil
  ) throws(HostError) -> Arena {
    do throws(MemoryError) {
      return try Arena(adopting: descriptor, byteCount: byteCount, at: address)
    } catch {
      throw .memory(error.description)
    }
  }

  private static func window(
    _ arguments: HostArguments, arena: Int32
  ) throws(HostError) -> MemoryWindow {
    do throws(MemoryError) {
      let window = try MemoryWindow(byteCount: arguments.windowBytes, at: arguments.arenaAddress)
      try window.map(arena, at: 0, byteCount: arguments.arenaBytes)
      close(arena)
      return window
    } catch {
      throw .memory(error.description)
    }
  }
}
