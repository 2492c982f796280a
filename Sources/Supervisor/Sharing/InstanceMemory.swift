import Channel
import Glibc
import Host
import Memory

/// The memory and the doorbells of one instance: made when it attaches, closed when all sides have let go.
final class InstanceMemory {
  let arena: Arena
  let channel: ChannelMemory
  let counters: CounterPage
  let doorbells: InstanceDoorbells
  /// What outlives the driver host; the instance does not see it.
  let record: Arena
  /// Huge pages that the system's pool has got for it: to be given back when it is closed.
  let addedPages: Int

  /// - Parameters:
  ///   - byteCount: of the arena, a multiple of 2 MiB.
  ///   - receiveBytes: of its receive segments.
  ///   - hasHugePages: whether to take huge pages where there are any.
  init(
    byteCount: Int, receiveBytes: Int, layout: ChannelLayout, hasHugePages: Bool,
    keeper: HugepageKeeper
  ) throws(SupervisorError) {
    var added = 0
    if hasHugePages {
      added = try keeper.grow(toFree: byteCount / Arena.PageSize.huge2M.rawValue)
    }
    do throws(SupervisorError) {
      arena = try asInput { () throws(MemoryError) -> Arena in
        hasHugePages
          ? try Arena.withBestPages(byteCount: byteCount, name: "martlet-instance")
          : try Arena(byteCount: byteCount, pageSize: .ordinary, name: "martlet-instance")
      }
      channel = try asInput { () throws(ChannelError) -> ChannelMemory in
        try ChannelMemory(layout: layout)
      }
      counters = try asInput { () throws(MemoryError) -> CounterPage in
        try CounterPage(capacity: Pipeline.instanceCounterCapacity)
      }
      doorbells = try InstanceDoorbells(queues: layout.queues)
      record = try asInput { () throws(MemoryError) -> Arena in
        try Arena(
          byteCount: HostRecord.instanceBytes(queues: layout.queues, receiveBytes: receiveBytes),
          pageSize: .ordinary, name: "martlet-record")
      }
    } catch {
      keeper.giveBackFree(&added)
      throw error
    }
    addedPages = added
  }
}
