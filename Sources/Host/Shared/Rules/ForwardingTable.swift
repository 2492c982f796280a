import Steering

/// All that decides where a packet goes, as a queue thread has it: claims, and rules where there are any. It changes as a
/// whole, between two turns.
struct ForwardingTable: BitwiseCopyable {
  /// Who gets what no rule decides.
  var claims: DeliveryRules
  /// nil where there are no rules.
  var rules: RuleTable?
  /// What packets go through before.
  var stages = StagePlan()

  /// Whether an instance may send a packet: its answer would go to that instance, by claims or by a rule.
  func maySend(_ packet: PacketHeader, _ frame: UnsafeRawPointer, _ byteCount: Int, from index: Int)
    -> Bool
  {
    if claims.maySend(packet, from: index) { return true }
    guard let rules, claims.isFromStation(packet) else { return false }
    return rules.recipients(ofAnswerTo: packet, frame, byteCount) & bit(index) != 0
  }
}

/// Keeps a table until the last queue thread has another.
final class ForwardingTableBox {
  private let claims: DeliveryTable
  private let rules: RuleTableBox?
  private let stages: StagePlan

  init(
    _ claims: consuming DeliveryTable, rules: RuleTableBox? = nil, stages: StagePlan = StagePlan()
  ) {
    self.claims = claims
    self.rules = rules
    self.stages = stages
  }

  /// Of an interface without instances.
  convenience init(station: UInt64) {
    do throws(ClaimConflict) {
      self.init(try DeliveryTable(station: station, claims: [], attached: 0))
    } catch {
      preconditionFailure("\(error)")
    }
  }

  /// As one queue thread has it.
  func table(queue: Int) -> ForwardingTable {
    ForwardingTable(
      claims: claims.rules, rules: rules?.table(queue: queue), stages: stages)
  }
}
