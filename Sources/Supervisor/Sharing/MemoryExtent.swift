import CLinux
import Memory

/// Memory that an instance has got behind its first: its own file, so that it can be freed by itself.
final class MemoryExtent {
  /// All zeros when it is made: the kernel hands no page of one file to another as it was.
  let arena: Arena
  /// Where it begins, in bytes from the instance's arena's start.
  let offset: Int
  /// Huge pages that the system's pool has got for it.
  let addedPages: Int
  /// Whether the device may read it.
  var isMapped = true

  /// - Parameters:
  ///   - byteCount: a multiple of 2 MiB.
  ///   - hasHugePages: whether to take huge pages where there are any.
  init(
    offset: Int, byteCount: Int, hasHugePages: Bool, keeper: HugepageKeeper
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
    } catch {
      keeper.giveBackFree(&added)
      throw error
    }
    self.offset = offset
    addedPages = added
  }

  var byteCount: Int { arena.byteCount }
  var end: Int { offset + byteCount }

  /// Frees all pages, also those that another process still has mapped or open: what it finds there from now on is zeros,
  /// of pages that it takes anew and that are counted as its own.
  /// - Returns: whether the kernel has done so.
  func discard() -> Bool { linux_punch_hole(arena.descriptor, 0, byteCount) == 0 }
}
