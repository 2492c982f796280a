/// Rules in the order in which they are looked at, as tests, in groups that can be hashed together.
///
/// Tuple-space search (Srinivasan, Suri, Varghese 1999): rules that ask for the same bits are one group. Where that makes
/// many groups, rules are hashed by fewer of their bits, and those of one hash are compared one after the other, as in
/// TupleMerge (Daly, Torng 2017).
struct ClassifierPlan {
  struct Group {
    var masks: [UInt64]
    /// Ranks, from the lowest.
    var rules: [Int]
  }

  /// A bit of a word for each group.
  static let maximumGroups = 64
  /// Up to so many rules each is a group: they are found by summaries alone.
  private static let fewRules = 16
  /// Up to so many groups nothing is gained by fewer.
  private static let fewGroups = 6
  /// What one look costs, in comparisons of a rule.
  private static let lookCost = 3.0

  let wordCount: Int
  /// By rank, the places in the set.
  let order: [Int]
  private var tests: [WordTest] = []
  private var testEnds: [Int] = []
  /// By rank and word: bits that are the same in all packets of a rule, and that are hashed.
  private var masks: [UInt64] = []
  /// By rank and word: the key of a packet that the rule matches.
  private var examples: [UInt64] = []
  /// In the order of their first rules.
  private(set) var groups: [Group] = []

  func tests(_ rank: Int) -> ArraySlice<WordTest> {
    tests[(rank == 0 ? 0 : testEnds[rank - 1])..<testEnds[rank]]
  }

  func mask(_ rank: Int, _ word: Int) -> UInt64 { masks[rank * wordCount + word] }
  func example(_ rank: Int, _ word: Int) -> UInt64 { examples[rank * wordCount + word] }

  /// - Parameter set: one that has been checked.
  init(_ set: RuleSet, _ fields: FieldPlan) {
    wordCount = fields.wordCount
    order = set.order
    masks = [UInt64](repeating: 0, count: order.count * wordCount)
    examples = masks
    tests.reserveCapacity(4 * order.count)
    testEnds.reserveCapacity(order.count)
    var scratch = Scratch(wordCount)
    for (rank, index) in order.enumerated() {
      plan(rank, set.rules[index].match, fields, &scratch)
    }
    group()
  }

  /// Reused from rule to rule.
  private struct Scratch {
    var exact: [UInt64]
    var lows: [UInt64]
    var ranges: [WordTest] = []

    init(_ wordCount: Int) {
      exact = [UInt64](repeating: 0, count: wordCount)
      lows = exact
    }
  }

  private mutating func plan(
    _ rank: Int, _ match: RuleMatch, _ fields: FieldPlan, _ scratch: inout Scratch
  ) {
    let first = rank * wordCount
    for word in 0..<wordCount {
      scratch.exact[word] = 0
      scratch.lows[word] = 0
    }
    scratch.ranges.removeAll(keepingCapacity: true)
    match.forEachCondition(fields) { condition in
      condition.forEachTest { test in
        let word = Int(test.word)
        examples[first + word] |= test.low
        if test.span > 0 {
          scratch.ranges.append(test)
          masks[first + word] |= test.mask & Self.commonBits(test.low, test.low + test.span)
        } else {
          scratch.exact[word] |= test.mask
          scratch.lows[word] |= test.low
          masks[first + word] |= test.mask
        }
      }
    }
    // What a packet has tells rules apart least: it is compared last, and not hashed.
    let contents = PacketKey.contents
    masks[first + contents] &= ~0xff
    for word in stride(from: wordCount - 1, through: 0, by: -1)
    where word != contents && scratch.exact[word] != 0 {
      tests.append(WordTest(word, mask: scratch.exact[word], low: scratch.lows[word]))
    }
    tests += scratch.ranges
    if scratch.exact[contents] != 0 {
      tests.append(WordTest(contents, mask: scratch.exact[contents], low: scratch.lows[contents]))
    }
    testEnds.append(tests.count)
  }

  /// The bits above the highest in which two numbers differ.
  private static func commonBits(_ one: UInt64, _ other: UInt64) -> UInt64 {
    let different = one ^ other
    return different == 0 ? .max : ~(.max >> UInt64(different.leadingZeroBitCount))
  }

  private mutating func group() {
    if order.count <= Self.fewRules {
      groups = order.indices.map { Group(masks: masks(of: $0), rules: [$0]) }
      return
    }
    let exact = gather { $0 }
    groups = exact
    if exact.count <= Self.fewGroups { return }
    var least = Double.infinity
    // Pieces of so many bits count only where they are whole; in the end nothing does.
    for width in [1, 4, 8, 16, 32, 64, 65] {
      let coarse = width == 1 ? exact : Self.coarser(exact) { Self.wholePieces($0, width) }
      if coarse.count > Self.maximumGroups { continue }
      let cost = cost(coarse)
      if cost >= least { break }
      (least, groups) = (cost, coarse)
    }
    if exact.count > Self.maximumGroups {
      let narrow = narrowest()
      if narrow.count <= Self.maximumGroups && cost(narrow) < least { groups = narrow }
    }
  }

  private func masks(of rank: Int) -> [UInt64] {
    Array(masks[rank * wordCount..<(rank + 1) * wordCount])
  }

  /// Rules of equal masks.
  private func gather(_ change: (UInt64) -> UInt64) -> [Group] {
    var gathered: [Group] = []
    var places: [UInt64: Int] = [:]
    for rank in order.indices {
      var hash: UInt64 = 0
      for word in 0..<wordCount { hash = Self.mix(hash, mask(rank, word)) }
      // Another hash is taken where two that differ have the same.
      while let place = places[hash], !isEqual(gathered[place].masks, rank) { hash &+= 1 }
      if let place = places[hash] {
        gathered[place].rules.append(rank)
      } else {
        places[hash] = gathered.count
        gathered.append(Group(masks: masks(of: rank), rules: [rank]))
      }
    }
    return gathered
  }

  private func isEqual(_ masks: [UInt64], _ rank: Int) -> Bool {
    masks.indices.allSatisfy { masks[$0] == mask(rank, $0) }
  }

  private static func mix(_ hash: UInt64, _ word: UInt64) -> UInt64 {
    let mixed = (hash ^ word) &* 0x9e37_79b9_7f4a_7c15
    return mixed ^ mixed &>> 29
  }

  private static func coarser(_ groups: [Group], _ change: (UInt64) -> UInt64) -> [Group] {
    var merged: [Group] = []
    var places: [[UInt64]: Int] = [:]
    for group in groups {
      let masks = group.masks.map(change)
      if let place = places[masks] {
        merged[place].rules += group.rules
      } else {
        places[masks] = merged.count
        merged.append(Group(masks: masks, rules: group.rules))
      }
    }
    return sorted(merged)
  }

  private static func sorted(_ groups: [Group]) -> [Group] {
    var groups = groups
    for index in groups.indices { groups[index].rules.sort() }
    return groups.sorted { $0.rules[0] < $1.rules[0] }
  }

  /// Fields by one of which a rule can be hashed: words of a key, and their bits.
  private static let columns: [(words: Range<Int>, mask: UInt64)] =
    [
      (0..<1, 0xffff_ffff_ffff), (0..<1, 0xfff << 48), (1..<2, 0xffff_ffff_ffff),
      (1..<2, 0xfff << 48), (2..<4, .max), (4..<6, .max), (6..<7, 0xffff), (6..<7, 0xffff << 16),
      (6..<7, 0xffff << 32), (6..<7, 0xff << 48), (7..<8, .max),
    ] + (PacketKey.fields..<PacketKey.maximumWords).map { ($0..<$0 + 1, .max) }

  /// Each rule by the one of its fields that the fewest others share.
  private func narrowest() -> [Group] {
    let columns = Self.columns.filter { $0.words.upperBound <= wordCount }
    let pieces = { (rank: Int, word: Int, column: Int) in
      Self.wholePieces(self.mask(rank, word) & columns[column].mask, 8)
    }
    /// Of each rule and column; 0 where the rule does not ask for it.
    var hashes = [UInt64](repeating: 0, count: order.count * columns.count)
    var counts = RowCounts(order.count * 4)
    for rank in order.indices {
      for (column, words) in columns.map(\.words).enumerated() {
        var hash = UInt64(column)
        var isAsked = false
        for word in words {
          let mask = pieces(rank, word, column)
          if mask != 0 { isAsked = true }
          hash = Self.mix(Self.mix(hash, mask), example(rank, word) & mask)
        }
        if !isAsked { continue }
        hashes[rank * columns.count + column] = hash | 1
        counts[hash | 1] += 1
      }
    }
    var gathered: [Group] = []
    var places: [[UInt64]: Int] = [:]
    var masks = [UInt64](repeating: 0, count: wordCount)
    for rank in order.indices {
      var best: (column: Int, count: Int)?
      for column in columns.indices {
        let hash = hashes[rank * columns.count + column]
        if hash != 0 && counts[hash] < best?.count ?? .max { best = (column, counts[hash]) }
      }
      for word in masks.indices { masks[word] = 0 }
      if let column = best?.column {
        for word in columns[column].words { masks[word] = pieces(rank, word, column) }
      }
      if let place = places[masks] {
        gathered[place].rules.append(rank)
      } else {
        places[masks] = gathered.count
        gathered.append(Group(masks: masks, rules: [rank]))
      }
    }
    return Self.sorted(gathered)
  }

  static func wholePieces(_ mask: UInt64, _ width: Int) -> UInt64 {
    if width > 64 { return 0 }
    if width == 64 { return mask == .max ? mask : 0 }
    let piece: UInt64 = 1 << UInt64(width) - 1
    return stride(from: 0, to: 64, by: width).reduce(0) { whole, position in
      let bits = piece << UInt64(position)
      return mask & bits == bits ? whole | bits : whole
    }
  }

  /// A look for each group, and as many rules compared as have the hash of one that matches.
  private func cost(_ groups: [Group]) -> Double {
    groups.reduce(0) { $0 + Self.lookCost + expectedRow($1) }
  }

  private func expectedRow(_ group: Group) -> Double {
    let words = group.masks.indices.filter { group.masks[$0] != 0 }
    var rows = RowCounts(group.rules.count)
    var sum = 0
    for rank in group.rules {
      var hash: UInt64 = 0
      for word in words { hash = Self.mix(hash, example(rank, word) & group.masks[word]) }
      sum += 2 * rows[hash] + 1
      rows[hash] += 1
    }
    return Double(sum) / Double(group.rules.count)
  }
}

/// How many rules have a hash, nearly: a few that differ are counted as one.
private struct RowCounts {
  private var counts: [Int32]

  init(_ rules: Int) {
    var size = 64
    while size < 4 * rules { size *= 2 }
    counts = [Int32](repeating: 0, count: size)
  }

  subscript(hash: UInt64) -> Int {
    get { Int(counts[Int(hash >> 20) & (counts.count - 1)]) }
    set { counts[Int(hash >> 20) & (counts.count - 1)] = Int32(newValue) }
  }
}
