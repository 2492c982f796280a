import CLinux
import Channel
import Memory
import Steering

/// A set of rules as the supervisor has told of it, made ready to be looked up. It lives until the last queue thread has
/// another.
final class RuleProgram {
  let set: RuleSet
  let classifier: Classifier
  /// A row for each queue, of a counter block for each rule.
  let counters: Arena
  /// The first rule's number in captures.
  let firstNumber: UInt32
  /// By rule's name.
  let limits: [String: PolicerState]

  /// More text is refused.
  static let maximumTextBytes = 8 << 20

  /// - Parameters:
  ///   - text: of the set.
  ///   - counters: zeroes; written by the queue threads.
  ///   - firstNumber: the first rule's in captures.
  ///   - before: what it takes the place of: limits go on.
  init(
    text: consuming Arena, byteCount: Int, counters: consuming Arena, queues: Int,
    firstNumber: UInt32, before: RuleProgram?
  ) throws(InstanceControl.Refusal) {
    let bytes = UnsafeRawBufferPointer(start: text.address, count: byteCount)
    do throws(RuleError) {
      set = try RuleSet(String(decoding: bytes, as: UTF8.self))
      classifier = try Classifier(set)
    } catch {
      throw InstanceControl.Refusal("\(error)")
    }
    guard counters.byteCount >= RuleCounterLayout.byteCount(rules: set.rules.count, queues: queues)
    else {
      throw InstanceControl.Refusal("there are not as many counters as rules")
    }
    self.counters = counters
    self.firstNumber = firstNumber
    var limits: [String: PolicerState] = [:]
    let now = monotonic_nanoseconds()
    for rule in set.rules where rule.actions.limit != nil {
      limits[rule.name] = before?.limits[rule.name] ?? PolicerState(now: now)
    }
    self.limits = limits
  }

  /// Where a queue's counters begin.
  func counters(queue: Int) -> UnsafeMutableRawPointer {
    counters.address + RuleCounterLayout.byteCount(rules: set.rules.count, queues: queue)
  }
}

/// A program's actions, with the instances that there are. Made anew when one comes or goes.
final class RuleTableBox {
  private let program: RuleProgram
  private let actions: UnsafeMutableBufferPointer<RuleAction>
  private let members: UnsafeMutableBufferPointer<UInt8>

  /// - Parameters:
  ///   - instances: names of those that take part, by number.
  ///   - stages: names of stages, and their places.
  init(
    _ program: RuleProgram, instances: [(index: Int, name: String)], stages: [String: Int] = [:]
  ) {
    self.program = program
    var numbers: [String: [UInt8]] = [:]
    for (index, name) in instances.sorted(by: { $0.index < $1.index }) {
      numbers[name, default: []].append(UInt8(index))
    }
    var members: [UInt8] = []
    actions = .allocate(capacity: program.set.rules.count)
    for (place, rule) in program.set.rules.enumerated() {
      var action = Self.action(rule, numbers, program.limits[rule.name], &members)
      for stage in rule.actions.stages.compactMap({ stages[$0] }).prefix(8).reversed() {
        action.stages = action.stages << 8 | UInt64(stage + 1)
      }
      actions.initializeElement(at: place, to: action)
    }
    self.members = .allocate(capacity: members.count)
    _ = self.members.initialize(from: members)
  }

  deinit {
    actions.deallocate()
    members.deallocate()
  }

  func table(queue: Int) -> RuleTable {
    RuleTable(
      classifier: program.classifier.view, actions: UnsafePointer(actions.baseAddress!),
      members: UnsafePointer(members.baseAddress!), counters: program.counters(queue: queue),
      hasLimits: !program.limits.isEmpty, hasStages: actions.contains { $0.stages != 0 },
      firstNumber: program.firstNumber)
  }

  private static func action(
    _ rule: Rule, _ numbers: [String: [UInt8]], _ limit: PolicerState?, _ members: inout [UInt8]
  ) -> RuleAction {
    var action = RuleAction()
    action.mark = UInt16(truncatingIfNeeded: rule.actions.mark ?? 0)
    for name in rule.actions.clones {
      for number in numbers[name] ?? [] { action.clones |= bit(Int(number)) }
    }
    switch rule.actions.verdict {
    case .deliver: break
    case .drop: action.verdict = .drop
    case .to(let names):
      // One that is not there keeps its place: the flows of others stay where they are.
      let found = names.flatMap { numbers[$0] ?? [RuleTable.absent] }
      action.verdict = found.count == 1 ? .to : .spread
      action.targets = found.reduce(0) { $1 < 64 ? $0 | bit(Int($1)) : $0 }
      action.firstMember = UInt32(members.count)
      action.memberCount = UInt32(found.count)
      members += found
    }
    if let limit, let wanted = rule.actions.limit { action.limit = limit.policer(wanted) }
    return action
  }
}
