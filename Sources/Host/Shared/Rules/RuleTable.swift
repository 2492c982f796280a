import CLinux
import Capture
import Steering

/// What is done with a packet that a rule matches.
struct RuleAction: BitwiseCopyable {
  enum Verdict: UInt8 { case deliver, to, spread, drop }

  var verdict = Verdict.deliver
  /// What the instance sees as the tag of the packet's first slot; 0 for none.
  var mark: UInt16 = 0
  /// Who gets it.
  var targets: UInt64 = 0
  /// Who gets a copy besides.
  var clones: UInt64 = 0
  /// Of a flow hash: where its instances stand among all, and how many they are.
  var firstMember: UInt32 = 0
  var memberCount: UInt32 = 0
  var limit: Policer?
  /// Places of the stages that it goes through, in this order: a byte each, the first one lowest, 1 for place 0; 0 ends them.
  var stages: UInt64 = 0
}

/// The rules as one queue thread has them: which one a packet hits, what that says, and what is counted of it.
struct RuleTable: BitwiseCopyable {
  let classifier: ClassifierView
  // Invariant: one action for each rule of the classifier; all members that actions refer to, each less than 64 or
  // ``absent``; and a row of counters of this queue, one for each rule. They live as long as the table's box.
  let actions: UnsafePointer<RuleAction>
  let members: UnsafePointer<UInt8>
  let counters: UnsafeMutableRawPointer
  let hasLimits: Bool
  let hasStages: Bool
  /// The first rule's number in captures; the others' follow.
  let firstNumber: UInt32

  /// A member that is not there.
  static let absent: UInt8 = 0xff

  /// What a rule says of all packets of a flow.
  /// - Parameter index: the rule's.
  /// - Returns: whether claims decide besides.
  func settle(_ verdict: inout FlowVerdict, _ index: Int, _ packet: PacketHeader) -> Bool {
    let action = actions + index
    verdict.rule = Int32(truncatingIfNeeded: index)
    verdict.mark = action.pointee.mark
    verdict.isSettled = action.pointee.limit == nil
    switch action.pointee.verdict {
    case .deliver, .drop: verdict.recipients = action.pointee.clones
    case .to:
      verdict.recipients = action.pointee.targets
      if action.pointee.clones != 0 { verdict.isSettled = false }
    case .spread:
      verdict.flowHash = packet.flowHash
      verdict.isSettled = false
    }
    return action.pointee.verdict == .deliver
  }

  /// A packet has hit a verdict's rule.
  @inline(__always)
  func count(_ verdict: FlowVerdict, bytes: Int) {
    count(Int(verdict.rule), .packets, 1)
    count(Int(verdict.rule), .bytes, UInt64(truncatingIfNeeded: bytes))
  }

  /// Nobody is there who would get a packet.
  /// - Returns: whether that is the rule's doing.
  func noteUnwanted(_ verdict: FlowVerdict) -> Bool {
    let action = actions + Int(verdict.rule)
    if action.pointee.verdict == .to { count(Int(verdict.rule), .absent, 1) }
    return action.pointee.verdict != .deliver
  }

  /// What a rule says of a packet where that is not settled.
  struct Decision {
    /// Who gets it.
    var recipients: UInt64 = 0
    /// Nobody gets it, and why is counted with the rule.
    var isDropped = false
    /// Claims decide, besides `recipients`.
    var isLeftToClaims = false
  }

  /// - Parameters:
  ///   - verdict: which rule it is.
  ///   - total: of the whole packet, in bytes.
  ///   - open: instances that take packets.
  ///   - now: nanoseconds of the monotonic clock, where there are limits.
  func decide(_ verdict: FlowVerdict, total: Int, open: UInt64, now: UInt64) -> Decision {
    let index = Int(verdict.rule)
    let action = actions + index
    if let limit = action.pointee.limit, !limit.allows(byteCount: total, now: now) {
      count(index, .limited, 1)
      return Decision(isDropped: true)
    }
    var decision = Decision(recipients: action.pointee.clones & open)
    switch action.pointee.verdict {
    case .deliver: decision.isLeftToClaims = true
    case .drop: decision.isDropped = decision.recipients == 0
    case .to, .spread:
      let chosen = chosen(action, verdict.flowHash, open: open)
      if chosen == 0 { count(index, .absent, 1) }
      decision.recipients |= chosen
      decision.isDropped = decision.recipients == 0
    }
    return decision
  }

  /// The number of the rule that matches a packet, in captures; nothing is counted.
  func number(_ packet: PacketHeader, _ frame: UnsafeRawPointer, _ byteCount: Int) -> UInt32 {
    let index = classifier.match(packet, frame: frame, byteCount: byteCount)
    return index < 0 ? CaptureRecord.noRule : number(index)
  }

  /// A rule's number in captures.
  @inline(__always)
  func number(_ index: Int) -> UInt32 {
    firstNumber &+ UInt32(truncatingIfNeeded: index)
  }

  /// The first stage that a packet's rule names and that it has not been through; nil where there is none. Nothing is
  /// counted.
  /// - Parameter passed: places, a bit for each.
  func stage(
    for packet: PacketHeader, _ frame: UnsafeRawPointer, byteCount: Int, passed: UInt8
  ) -> Int? {
    let index = classifier.match(packet, frame: frame, byteCount: byteCount)
    guard index >= 0 else { return nil }
    var left = actions[index].stages
    while left != 0 {
      let place = UInt8(truncatingIfNeeded: left) &- 1
      if passed &>> place & 1 == 0 { return Int(place) }
      left &>>= 8
    }
    return nil
  }

  /// Who would get the answer to a packet by a rule.
  func recipients(
    ofAnswerTo packet: PacketHeader, _ frame: UnsafeRawPointer, _ byteCount: Int
  ) -> UInt64 {
    let answer = packet.reversed
    let index = classifier.match(answer, frame: frame, byteCount: byteCount)
    guard index >= 0 else { return 0 }
    let action = actions + index
    return action.pointee.clones | chosen(action, answer.flowHash, open: .max)
  }

  private func chosen(
    _ action: UnsafePointer<RuleAction>, _ flowHash: @autoclosure () -> UInt32, open: UInt64
  ) -> UInt64 {
    guard action.pointee.verdict == .spread else { return action.pointee.targets & open }
    let count = action.pointee.memberCount
    let members = members + Int(action.pointee.firstMember)
    // Flows of one that is not there go to the next that is; those of others stay where they are.
    var place = UInt32(
      truncatingIfNeeded: (UInt64(flowHash()) &* UInt64(count)) &>> 32)
    for _ in 0..<count {
      let member = members[Int(place)]
      if member < 64, open & bit(Int(member)) != 0 { return bit(Int(member)) }
      place = place &+ 1 == count ? 0 : place &+ 1
    }
    return 0
  }

  @inline(__always)
  private func count(_ rule: Int, _ counter: RuleCounterLayout.Counter, _ change: UInt64) {
    let word = counters + (rule &* RuleCounterLayout.blockBytes &+ counter.rawValue &* 8)
    // This thread alone writes it.
    relaxed_store64(word, relaxed_load64(word) &+ change)
  }
}
