/// Which groups can have a rule for a packet, by single bytes of its key: for each value of a byte, a bit for each group.
/// The groups of a packet are what all summaries have in common.
struct ClassifierSummaries {
  /// The byte of a key that each is for, and its 256 sets.
  private(set) var chosen: [(position: Int, sets: [UInt64])] = []

  /// A further summary has to leave so much less to look at.
  private static let gain = 0.85
  private static let samples = 128

  init(_ plan: ClassifierPlan) {
    if plan.groups.count < 2 { return }
    let all = ByteSets(plan)
    // Packets are taken to be like those that the rules name.
    let step = max(1, plan.order.count / Self.samples)
    let packets = Array(stride(from: 0, to: plan.order.count, by: step))
    let byte = { (rank: Int, position: Int) in
      Int(plan.example(rank, position / 8) >> UInt64(8 * (position % 8)) & 0xff)
    }
    let everyGroup = UInt64.max >> UInt64(64 - plan.groups.count)
    var candidates = [UInt64](repeating: everyGroup, count: packets.count)
    var cost = packets.count * plan.groups.count
    while chosen.count < ClassifierHeader.maximumSummaries {
      var best: (position: Int, cost: Int)?
      for position in all.positions where !chosen.contains(where: { $0.position == position }) {
        var sum = 0
        for (packet, set) in zip(packets, candidates) {
          sum += (set & all.set(position, byte(packet, position))).nonzeroBitCount
        }
        if sum < best?.cost ?? cost { best = (position, sum) }
      }
      guard let best, Double(best.cost) < Self.gain * Double(cost) else { return }
      chosen.append((best.position, (0..<256).map { all.set(best.position, $0) }))
      cost = best.cost
      for index in packets.indices {
        candidates[index] &= all.set(best.position, byte(packets[index], best.position))
      }
    }
  }
}

/// For each byte of a key and each value of it, the groups that have a rule for it.
private struct ByteSets {
  private var sets: [UInt64]
  /// Groups with a rule that does not ask for the byte.
  private var always: [UInt64]
  /// Bytes that a rule asks for; only they have sets.
  private(set) var positions: [Int]
  /// Of each byte, where its sets are.
  private var places: [Int]

  func set(_ position: Int, _ value: Int) -> UInt64 {
    sets[places[position] * 256 + value] | always[position]
  }

  init(_ plan: ClassifierPlan) {
    let count = plan.wordCount * 8
    always = [UInt64](repeating: 0, count: count)
    var asked = [UInt64](repeating: 0, count: plan.wordCount)
    for rank in plan.order.indices {
      for test in plan.tests(rank) { asked[Int(test.word)] |= test.mask }
    }
    positions = (0..<count).filter { asked[$0 / 8] >> UInt64(8 * ($0 % 8)) & 0xff != 0 }
    places = [Int](repeating: 0, count: count)
    for (place, position) in positions.enumerated() { places[position] = place }
    sets = [UInt64](repeating: 0, count: positions.count * 256)
    var isAsked = [UInt64](repeating: 0, count: plan.wordCount)
    for (index, group) in plan.groups.enumerated() {
      for rank in group.rules { add(plan.tests(rank), 1 << UInt64(index), &isAsked) }
    }
  }

  private mutating func add(
    _ tests: ArraySlice<WordTest>, _ bit: UInt64, _ isAsked: inout [UInt64]
  ) {
    for word in isAsked.indices { isAsked[word] = 0 }
    // A byte that two tests of a rule ask for is given to what either allows: never too little.
    for test in tests {
      let word = Int(test.word)
      for byte in 0..<8 {
        let shift = UInt64(8 * byte)
        let mask = Int(test.mask >> shift & 0xff)
        guard mask != 0, let range = Self.values(test, byte) else { continue }
        isAsked[word] |= 0xff << shift
        let base = places[word * 8 + byte] * 256
        if mask == 0xff {
          for value in range { sets[base + value] |= bit }
          continue
        }
        for value in range where value & ~mask == 0 {
          // Each choice of the bits that are not asked for.
          let free = ~mask & 0xff
          var rest = free
          while true {
            sets[base + (value | rest)] |= bit
            if rest == 0 { break }
            rest = (rest - 1) & free
          }
        }
      }
    }
    for position in positions
    where isAsked[position / 8] >> UInt64(8 * (position % 8)) & 0xff == 0 {
      always[position] |= bit
    }
  }

  /// The masked values of a byte that a test allows; nil where that is nearly all.
  private static func values(_ test: WordTest, _ byte: Int) -> ClosedRange<Int>? {
    let shift = UInt64(8 * byte)
    let (low, high) = (test.low, test.low + test.span)
    // Bits above that differ: this byte may be anything.
    if byte < 7 && low >> (shift + 8) != high >> (shift + 8) { return nil }
    return Int(low >> shift & 0xff)...Int(high >> shift & 0xff)
  }
}
