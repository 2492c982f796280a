import Steering
import Synchronization

/// A rule set at one time: what is looked up in, and what the plain classifier says of it.
final class RuleVersion: @unchecked Sendable {
  let classifier: Classifier
  /// By place in the pool: priority and place in the set; the lowest decides. -1 for rules that are not in it.
  let order: [Int64]
  /// By place in the set, the place in the pool.
  let places: [Int32]

  init(_ set: RuleSet, _ places: [Int32], poolCount: Int) throws {
    classifier = try Classifier(set)
    var order = [Int64](repeating: -1, count: poolCount)
    for (index, place) in places.enumerated() {
      order[Int(place)] = Int64(set.rules[index].priority) << 32 | Int64(index)
    }
    self.order = order
    self.places = places
  }

  /// The place in the set of the rule that decides, of those of the pool that match.
  func expected(_ matching: [Int32]) -> Int {
    var best = Int64.max
    for place in matching {
      let order = order[Int(place)]
      if order >= 0 && order < best { best = order }
    }
    return best == .max ? -1 : Int(best & 0xffff_ffff)
  }
}

/// A set that changes: rules come, go, are replaced, moved and given another priority.
struct ChangingRules {
  private let pool: RulePool
  private var set: RuleSet
  private var places: [Int32]
  private var spare: [Int32]

  init(_ pool: RulePool, count: Int) {
    self.pool = pool
    places = (0..<count).map { Int32($0) }
    spare = (count..<pool.set.rules.count).map { Int32($0) }
    set = RuleSet(protocols: pool.set.protocols, rules: places.map { pool.set.rules[Int($0)] })
  }

  func version() throws -> RuleVersion {
    try RuleVersion(set, places, poolCount: pool.set.rules.count)
  }

  mutating func change(using random: inout some RandomNumberGenerator) {
    let index = places.isEmpty ? 0 : Int.random(in: places.indices, using: &random)
    switch places.isEmpty ? 0 : Int.random(in: 0..<5, using: &random) {
    case 0:
      guard let place = spare.popLast() else { return }
      set.rules.insert(pool.set.rules[Int(place)], at: index)
      places.insert(place, at: index)
    case 1:
      set.rules.remove(at: index)
      spare.insert(places.remove(at: index), at: 0)
    case 2:
      guard let place = spare.popLast() else { return }
      spare.insert(places[index], at: 0)
      set.rules[index] = pool.set.rules[Int(place)]
      places[index] = place
    case 3:
      let other = Int.random(in: places.indices, using: &random)
      set.rules.swapAt(index, other)
      places.swapAt(index, other)
    default: set.rules[index].priority = .random(in: 0...3, using: &random)
    }
  }
}
