/// Places of instances in the window: the one range of addresses in which the device sees all memory of a shared NIC, the
/// host's own first.
struct WindowPlan {
  let byteCount: Int
  /// What is taken, by where it begins.
  private var taken: [Range<Int>]

  /// Places begin at multiples of a huge page.
  static let granule = 2 << 20

  /// - Parameters:
  ///   - byteCount: of the window.
  ///   - hostBytes: at its start, the host's own.
  init(byteCount: Int, hostBytes: Int) {
    self.byteCount = byteCount
    taken = [0..<hostBytes]
  }

  /// To whole huge pages.
  static func rounded(_ byteCount: Int) -> Int { (byteCount + granule - 1) / granule * granule }

  /// Takes the first gap that is large enough.
  /// - Returns: bytes from the window's start; nil where there is none.
  mutating func reserve(_ byteCount: Int) -> Int? {
    let size = Self.rounded(byteCount)
    for (index, range) in taken.enumerated() {
      let start = (range.upperBound + Self.granule - 1) / Self.granule * Self.granule
      let end = index + 1 < taken.count ? taken[index + 1].lowerBound : self.byteCount
      guard size <= end - start else { continue }
      taken.insert(start..<start + size, at: index + 1)
      return start
    }
    return nil
  }

  mutating func release(_ offset: Int) {
    // The first is the host's.
    if let index = taken.dropFirst().firstIndex(where: { $0.lowerBound == offset }) {
      taken.remove(at: index)
    }
  }

  /// Bytes that instances have places for.
  var reservedBytes: Int { taken.dropFirst().reduce(0) { $0 + $1.count } }
}
