import Steering

/// What is said of the packets of a flow, whoever is there to get them.
struct FlowVerdict: BitwiseCopyable {
  /// The place of the rule that they hit; -1 for none.
  var rule: Int32 = -1
  /// Where that rule spreads flows.
  var flowHash: UInt32 = 0
  /// Where claims decide, who has claimed them.
  var claimants: UInt64 = 0
  /// Why nobody has.
  var reason = DropReason.unclaimed
}

/// Verdicts on flows that were seen not long ago, so that the next packet of one is found by its key alone, as the exact-match
/// cache of Open vSwitch does it. It holds for one ``ForwardingTable``. One thread.
struct FlowCache: ~Copyable {
  private struct Entry: BitwiseCopyable {
    var key = FlowKey()
    var verdict = FlowVerdict()
  }

  // Invariant: `1 << bits` initialised entries. A key lies at its hash's place or at the place beside that.
  private let entries: UnsafeMutablePointer<Entry>
  /// Who sends does not choose which flows displace each other.
  private let factor = UInt64.random(in: 0...(.max)) | 1
  private var hits = 0
  private var misses = 0
  /// Packets to come that are not looked for.
  private var rest = 0

  /// More flows at a time than that are found less often.
  private static let bits: UInt64 = 10
  /// After so many packets that were not found, less than as many that were: the cache only costs, as while somebody scans.
  private static let patience = 256
  /// It is left alone for as many packets then.
  private static let restPackets = 16 * patience

  init() {
    entries = .allocate(capacity: 1 << Int(Self.bits))
    entries.initialize(repeating: Entry(), count: 1 << Int(Self.bits))
  }

  deinit { entries.deallocate() }

  /// There is another table.
  /// - Parameter isSufficient: whether it asks for nothing that keys do not have.
  mutating func forget(isSufficient: Bool) {
    entries.update(repeating: Entry(), count: 1 << Int(Self.bits))
    rest = isSufficient ? 0 : .max
  }

  /// The key of a packet that is to be looked for.
  @inline(__always)
  mutating func key(_ frame: UnsafeRawPointer, _ byteCount: Int) -> FlowKey? {
    if rest > 0 {
      rest &-= 1
      return nil
    }
    return FlowKey(frame: frame, byteCount: byteCount)
  }

  @inline(__always)
  mutating func find(_ key: FlowKey) -> FlowVerdict? {
    let place = place(key)
    if entries[place].key == key {
      hits &+= 1
      return entries[place].verdict
    }
    return findBeside(key, place)
  }

  @inline(never)
  private mutating func findBeside(_ key: FlowKey, _ place: Int) -> FlowVerdict? {
    if entries[place ^ 1].key == key {
      hits &+= 1
      return entries[place ^ 1].verdict
    }
    misses &+= 1
    if misses == Self.patience {
      if hits < misses { rest = Self.restPackets }
      (hits, misses) = (0, 0)
    }
    return nil
  }

  /// Displaces what was at its place to the place beside.
  mutating func remember(_ key: FlowKey, _ verdict: FlowVerdict) {
    let place = place(key)
    entries[place ^ 1] = entries[place]
    entries[place] = Entry(key: key, verdict: verdict)
  }

  @inline(__always)
  private func place(_ key: FlowKey) -> Int {
    Int(truncatingIfNeeded: key.hash(factor) &>> (64 &- Self.bits))
  }
}
