/// What a host counts for each stage, on each queue; published as the sum over the queues.
enum StageCounter: Int, CaseIterable {
  case received
  case passed
  case dropped
  case made
  case droppedFull
  case droppedDown
  case droppedLost
  case droppedInvalid
  case bypassed
  case inside

  /// By DPDK's xstats grammar.
  /// - Parameter stage: its name.
  func name(_ stage: String) -> String {
    let end =
      switch self {
      case .received: "in_packets"
      case .passed: "out_packets"
      case .dropped: "dropped"
      case .made: "made_packets"
      case .droppedFull: "dropped_ring_full"
      case .droppedDown: "dropped_down"
      case .droppedLost: "dropped_lost"
      case .droppedInvalid: "dropped_invalid"
      case .bypassed: "bypassed"
      case .inside: "held_packets"
      }
    return "stage_\(stage)_\(end)"
  }
}
