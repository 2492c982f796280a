import Glibc
import Memory

/// Memory that a device may reach, named for its trace.
public struct TracedMemory {
  /// How much of it is compared at every access, so that what changes is written down.
  public enum Watch: Sendable {
    /// All of it: rings, and what is small.
    case all
    /// The pages that ``TracedFunction/watch(_:)`` names: packets.
    case parts
  }

  public let name: String
  public let range: DMARange
  public let watch: Watch

  public init(_ name: String, _ range: DMARange, watch: Watch = .all) {
    self.name = name
    self.range = range
    self.watch = watch
  }

  var mapping: TraceMapping {
    TraceMapping(name: name, iova: range.iova, byteCount: range.byteCount)
  }
}

/// Finds out what has changed in a range since the last look; at first, all that is not zero.
struct MemoryWatch {
  private let range: DMARange
  private let watch: TracedMemory.Watch
  /// The pages that are compared, by their place in the range, with what they held at the last look.
  private var pages: [(start: Int, known: [UInt8])] = []
  private var isWatched: Set<Int> = []
  /// Those of `pages` that have changed once: in rings, the few that the device and the driver talk by.
  private var lively: Set<Int> = []
  private static let page = 4096
  /// Bytes between two changes that are written down with them, rather than to begin a line anew.
  private static let gap = 8

  init(_ memory: TracedMemory) {
    range = memory.range
    watch = memory.watch
    if watch == .all { add(0..<range.byteCount) }
  }

  /// Watches the pages of a part, as far as they are this range's.
  mutating func add(_ part: DMARange) {
    guard watch == .parts, part.iova >= range.iova,
      part.iova - range.iova <= UInt64(range.byteCount)
    else { return }
    let start = Int(part.iova - range.iova)
    add(start..<min(start + part.byteCount, range.byteCount))
  }

  private mutating func add(_ bytes: Range<Int>) {
    var start = bytes.lowerBound / Self.page * Self.page
    while start < bytes.upperBound {
      if isWatched.insert(start).inserted {
        let byteCount = min(Self.page, range.byteCount - start)
        pages.append((start, Array(repeating: 0, count: byteCount)))
      }
      start += Self.page
    }
  }

  private func isUnchanged(_ index: Int) -> Bool {
    let page = pages[index]
    return page.known.withUnsafeBytes {
      memcmp($0.baseAddress!, range.address + page.start, $0.count) == 0
    }
  }

  var isWhole: Bool { watch == .all }

  /// Whether something has changed since the last look in a page that is always watched and has changed before. Quick.
  var hasNews: Bool { isWhole && lively.contains { !isUnchanged($0) } }

  mutating func changes() -> [(iova: UInt64, bytes: [UInt8])] {
    var result: [(iova: UInt64, bytes: [UInt8])] = []
    for index in pages.indices where !isUnchanged(index) {
      let start = pages[index].start
      // One copy, which does not change while it is compared.
      let now = Array(
        UnsafeRawBufferPointer(start: range.address + start, count: pages[index].known.count))
      for run in Self.runs(pages[index].known, now) {
        result.append((range.iova + UInt64(start + run.lowerBound), Array(now[run])))
      }
      pages[index].known = now
      lively.insert(index)
    }
    return result
  }

  private static func runs(_ old: [UInt8], _ new: [UInt8]) -> [Range<Int>] {
    var runs: [Range<Int>] = []
    for index in new.indices where new[index] != old[index] {
      if let last = runs.last, index - last.upperBound <= gap {
        runs[runs.count - 1] = last.lowerBound..<index + 1
      } else {
        runs.append(index..<index + 1)
      }
    }
    return runs
  }
}
