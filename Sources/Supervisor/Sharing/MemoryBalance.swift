/// What an instance has, as far as it matters to who gives memory to whom.
struct MemoryShare: Equatable {
  var id: UInt32
  /// Bytes that it keeps whatever happens.
  var guaranteed: Int
  var now: Int
  /// Milliseconds since it last received or sent.
  var idle: UInt64
  /// It has been asked to give memory back and has not answered yet.
  var isAsked = false
}

/// Decides who gives memory back; does nothing itself.
enum MemoryBalance {
  /// An instance and the bytes that it should go down to.
  struct Shrink: Equatable {
    var id: UInt32
    var target: Int
  }

  /// Bytes that are nobody's.
  static func free(budget: Int?, _ shares: [MemoryShare]) -> Int {
    budget.map { max(0, $0 - shares.reduce(0) { $0 + $1.now }) } ?? .max
  }

  /// Whom to ask so that `bytes` become free: those that have been idle longest first, each for no more than is lacking
  /// and never below its guarantee.
  /// - Parameters:
  ///   - wanting: the instance that wants them.
  ///   - idleAfter: milliseconds after which an instance counts as idle.
  ///   - isGuaranteed: then also those that are busy have to give what they have above their guarantee.
  /// - Returns: nil where all that could be had is not enough. Those that have been asked already count.
  static func reclaim(
    _ bytes: Int, for wanting: UInt32?, idleAfter: UInt64, isGuaranteed: Bool = false,
    from shares: [MemoryShare]
  ) -> [Shrink]? {
    var lacking = bytes
    var shrinks: [Shrink] = []
    let able = shares.filter {
      $0.id != wanting && $0.now > $0.guaranteed && (isGuaranteed || $0.idle >= idleAfter)
    }
    for share in able where share.isAsked { lacking -= share.now - share.guaranteed }
    for share in able.sorted(by: { ($0.idle, $1.id) > ($1.idle, $0.id) }) where !share.isAsked {
      if lacking <= 0 { break }
      let taken = min(lacking, share.now - share.guaranteed)
      shrinks.append(Shrink(id: share.id, target: share.now - taken))
      lacking -= taken
    }
    return lacking <= 0 ? shrinks : nil
  }

  /// Whom to ask when the system is short of memory: everybody, for all above its guarantee.
  static func relief(_ shares: [MemoryShare]) -> [Shrink] {
    shares.filter { $0.now > $0.guaranteed && !$0.isAsked }.map {
      Shrink(id: $0.id, target: $0.guaranteed)
    }
  }
}
