import Capture
import Memory
import Steering

extension InstanceTable {
  /// Received packets for those who capture at the wire. The rule of each that is kept is looked up for its record alone: it
  /// has not been delivered yet.
  @inline(never) @usableFromInline
  mutating func captureReceived(_ received: borrowing Burst) {
    guard let rules = table.rules else { return tap.capture(.wireReceive, received) }
    withUnsafePointer(to: rules) { rules in
      let finder = RuleFinder(UnsafeRawPointer(rules)) { context, frame, byteCount in
        context.assumingMemoryBound(to: RuleTable.self).pointee.number(
          PacketHeader(frame: frame, byteCount: byteCount), frame, byteCount)
      }
      tap.capture(.wireReceive, received, rules: finder)
    }
  }
}
