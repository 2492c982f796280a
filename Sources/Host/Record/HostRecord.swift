import Memory

/// Memory that outlives a driver host, made by the supervisor: what each thread does, when the host came how far, and, where
/// there is one instance only, a ``PathRecord`` for each queue. Where many share the function, each instance has its paths'
/// records in memory of its own (``instanceBytes(queues:receiveBytes:)``).
///
/// The supervisor reads it to see whether a host is stuck, and believes nothing that could hurt it.
public struct HostRecord: ~Copyable, @unchecked Sendable {
  // Invariant: the arena holds a page and then `pathBytes` bytes of path records.
  private let arena: Arena
  private let pathBytes: Int

  public var descriptor: Int32 { arena.descriptor }

  private static func byteCount(queues: Int, receiveBytes: Int) -> Int {
    4096 + (receiveBytes == 0 ? 0 : instanceBytes(queues: queues, receiveBytes: receiveBytes))
  }

  /// Bytes of the path records of one instance.
  /// - Parameter receiveBytes: of its receive segments, on all queues.
  public static func instanceBytes(queues: Int, receiveBytes: Int) -> Int {
    let segments = receiveBytes / Descriptor.unit
    return queues * PathRecord.byteCount(segments: 0) + queues * 4096
      + (segments + 4095) / 4096 * 4096
  }

  /// Makes an empty record.
  /// - Parameter receiveBytes: of the only instance's receive segments; 0 where many share the function.
  public init(queues: Int, receiveBytes: Int) throws(MemoryError) {
    let byteCount = Self.byteCount(queues: queues, receiveBytes: receiveBytes)
    arena = try Arena(byteCount: byteCount, pageSize: .ordinary, name: "martlet-record")
    pathBytes = byteCount - 4096
  }

  /// Maps what the supervisor has made. The descriptor is the record's from now on.
  init(adopting descriptor: Int32, queues: Int, receiveBytes: Int) throws(MemoryError) {
    let byteCount = Self.byteCount(queues: queues, receiveBytes: receiveBytes)
    arena = try Arena(adopting: descriptor, byteCount: byteCount)
    pathBytes = byteCount - 4096
  }

  /// The record of one queue of the only instance.
  /// - Parameters:
  ///   - queue: below the number of queues that the function has.
  ///   - segments: of each queue.
  func path(_ queue: Int, segments: Int) -> PathRecord {
    Self.path(queue, segments: segments, in: arena.address + 4096, byteCount: pathBytes)
  }

  /// The record of one queue of an instance.
  static func path(
    _ queue: Int, segments: Int, in memory: UnsafeMutableRawPointer, byteCount: Int
  ) -> PathRecord {
    let each = PathRecord.byteCount(segments: segments)
    precondition((queue + 1) * each <= byteCount)
    return PathRecord(memory + queue * each, segments: segments)
  }

  /// What its threads show of themselves.
  public var signs: HostSigns { HostSigns(page: arena.address) }
}
