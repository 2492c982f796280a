import Glibc
import Memory

/// Memory that a device may reach, named for its trace.
public struct TracedMemory {
  public let name: String
  public let range: DMARange
  /// Whether a recorder writes down what changes in it. All of it is compared at every access: rings, and what is
  /// small or rarely looked at.
  public let isWatched: Bool

  public init(_ name: String, _ range: DMARange, isWatched: Bool = true) {
    self.name = name
    self.range = range
    self.isWatched = isWatched
  }

  var mapping: TraceMapping {
    TraceMapping(name: name, iova: range.iova, byteCount: range.byteCount)
  }
}

/// Finds out what has changed in a range since the last look; at first, all that is not zero.
struct MemoryWatch {
  let range: DMARange
  private var known: [UInt8]
  private static let page = 4096
  /// Bytes between two changes that are written down with them, rather than to begin a line anew.
  private static let gap = 8

  init(_ range: DMARange) {
    self.range = range
    known = Array(repeating: 0, count: range.byteCount)
  }

  mutating func changes() -> [(iova: UInt64, bytes: [UInt8])] {
    var result: [(iova: UInt64, bytes: [UInt8])] = []
    var start = 0
    while start < range.byteCount {
      let end = min(start + Self.page, range.byteCount)
      let isSame = known.withUnsafeBytes {
        memcmp($0.baseAddress! + start, range.address + start, end - start) == 0
      }
      if !isSame {
        // One copy, which does not change while it is compared.
        let now = Array(UnsafeRawBufferPointer(start: range.address + start, count: end - start))
        for run in Self.runs(known[start..<end], now) {
          result.append((range.iova + UInt64(start + run.lowerBound), Array(now[run])))
        }
        known.replaceSubrange(start..<end, with: now)
      }
      start = end
    }
    return result
  }

  private static func runs(_ old: ArraySlice<UInt8>, _ new: [UInt8]) -> [Range<Int>] {
    var runs: [Range<Int>] = []
    for index in new.indices where new[index] != old[old.startIndex + index] {
      if let last = runs.last, index - last.upperBound <= gap {
        runs[runs.count - 1] = last.lowerBound..<index + 1
      } else {
        runs.append(index..<index + 1)
      }
    }
    return runs
  }
}
