import CLinux
import Memory

/// The memory of one command channel: the server makes it, the client maps it too. ``CommandLayout`` says what is where.
public struct CommandMemory: ~Copyable, @unchecked Sendable {
  // Invariant: the arena has the layout's bytes, and its memory cannot shrink.
  public let layout: CommandLayout
  private let arena: Arena

  public var descriptor: Int32 { arena.descriptor }

  /// Makes a channel.
  public init(layout: CommandLayout) throws(MemoryError) {
    self.layout = layout
    arena = try Arena(byteCount: layout.byteCount, pageSize: .ordinary, name: "martlet-commands")
    for (index, word) in Self.header(layout).enumerated() {
      arena.address.storeBytes(of: word, toByteOffset: 4 * index, as: UInt32.self)
    }
  }

  /// Attaches to a channel that a server has made. The descriptor is the channel's from now on, also when this throws.
  /// - Throws: ``CommandError/foreign`` where the header says something else than the layout, ``CommandError/memory(_:)``.
  public init(
    adopting descriptor: Int32, layout: CommandLayout = .standard
  ) throws(CommandError) {
    let arena: Arena
    do throws(MemoryError) {
      arena = try Arena(adopting: descriptor, byteCount: layout.byteCount)
    } catch {
      throw .memory(error)
    }
    for (index, word) in Self.header(layout).enumerated()
    where relaxed_load32(arena.address + 4 * index) != word { throw .foreign }
    self.layout = layout
    self.arena = arena
  }

  private static func header(_ layout: CommandLayout) -> [UInt32] {
    [
      CommandLayout.magic, CommandLayout.version, UInt32(layout.entries),
      UInt32(CommandLayout.textBytes),
    ]
  }

  func address(_ offset: Int) -> UnsafeMutableRawPointer { arena.address + offset }
}
