import Channel
import Memory
import Steering

/// The rules of a shared run: what administrators have set, what of it the driver host has, and what each rule has counted.
///
/// The host is told of one set at a time, as a whole; what changes meanwhile goes together with the next.
struct RuleBook {
  /// What has been set.
  private(set) var rules = RuleSet()
  /// Goes up with each change.
  private(set) var generation: UInt64 = 0
  /// What the host goes by.
  private var inForce = RuleSet()
  private(set) var generationInForce: UInt64 = 0
  /// What it has been told last; nil before the first.
  private var told: Told?
  /// Counts of pages that have been given up, by rule's name.
  private var earlier: [String: RuleCounts] = [:]
  /// A page whose counts may still grow until the host has taken what it was told.
  private var former: RuleCounterPage?
  private let queues: Int
  /// What the first rule of the next set gets.
  private var nextNumber: UInt32 = 0
  /// Sets that the host has been told of.
  private(set) var changes: UInt64 = 0

  private struct Told {
    var generation: UInt64
    var rules: RuleSet
    var counters: RuleCounterPage
    var firstNumber: UInt32
  }

  init(queues: Int) { self.queues = queues }

  /// Whether the host has something to be told.
  var isBehind: Bool { generation != generationInForce && !isUnderWay }
  /// Whether it has been told and has not answered.
  private(set) var isUnderWay = false

  /// Takes a set in place of the one before.
  mutating func replace(with new: RuleSet) {
    rules = new
    generation += 1
  }

  /// What to tell the host; the descriptors are good until the next call.
  /// - Parameter isAgain: it is another host, which has been told nothing.
  mutating func message(isAgain: Bool = false) throws(MemoryError) -> HostMessage? {
    if isAgain, let told {
      return try HostMessage(told.generation, told.rules, told.counters, told.firstNumber)
    }
    guard isBehind else { return nil }
    let counters = try RuleCounterPage(rules, queues: queues)
    let message = try HostMessage(generation, rules, counters, nextNumber)
    former = told?.counters
    told = Told(
      generation: generation, rules: rules, counters: counters, firstNumber: nextNumber)
    // Each rule of each set has a number of its own, so that a record says which rule it was after the set has changed.
    nextNumber = (nextNumber + UInt32(rules.rules.count)) & 0x7fff_ffff
    changes += 1
    isUnderWay = true
    return message
  }

  /// The rules that the host has been told of last, by the numbers that captures have of them.
  var numbered: RuleNames? {
    told.map { RuleNames(first: $0.firstNumber, names: $0.rules.rules.map(\.name)) }
  }

  /// What has been counted: the pages that are written, each with what its rules had counted before.
  var pages: [(page: RuleCounterPage, before: [String: RuleCounts])] {
    (former.map { [($0, [:])] } ?? []) + (told.map { [($0.counters, earlier)] } ?? [])
  }

  /// The host goes by what it was told.
  mutating func confirm(_ generation: UInt64) {
    guard let told, told.generation == generation, isUnderWay else { return }
    isUnderWay = false
    generationInForce = generation
    inForce = told.rules
    retireFormer()
    let names = Set(inForce.rules.map(\.name))
    earlier = earlier.filter { names.contains($0.key) }
  }

  /// The host goes by what it had: so does the book.
  mutating func refuse(_ generation: UInt64) {
    guard let told, told.generation == generation, isUnderWay else { return }
    isUnderWay = false
    retireFormer()
    giveUp()
  }

  /// What has been set since what the host goes by is forgotten.
  mutating func giveUp() {
    rules = inForce
    generationInForce = generation
  }

  private mutating func retireFormer() {
    for (name, counts) in former?.counts ?? [] { earlier[name, default: RuleCounts()] += counts }
    former = nil
  }

  /// Of each rule that has been set, in their order.
  var counts: [(rule: Rule, counts: RuleCounts)] {
    var sums = earlier
    for page in [former, told?.counters] {
      for (name, counts) in page?.counts ?? [] { sums[name, default: RuleCounts()] += counts }
    }
    return rules.rules.map { ($0, sums[$0.name] ?? RuleCounts()) }
  }
}

/// What the host is told of rules: a message and two descriptors that live as long as this.
final class HostMessage {
  let text: String
  private let rules: SharedText
  private let counters: RuleCounterPage

  var descriptors: [Int32] { [rules.descriptor, counters.descriptor] }

  /// - Parameter firstNumber: the first rule's in captures; the others' follow.
  init(
    _ generation: UInt64, _ set: RuleSet, _ counters: RuleCounterPage, _ firstNumber: UInt32
  ) throws(MemoryError) {
    rules = try SharedText(set.description, name: "martlet-rules")
    self.counters = counters
    text =
      "rules generation=\(generation) bytes=\(rules.byteCount) counters=\(counters.byteCount) first=\(firstNumber)"
  }
}
