import Steering

/// What is said of the packets of a flow, whoever is there to get them.
@usableFromInline
struct FlowVerdict: BitwiseCopyable {
  /// The place of the rule that they hit; -1 for none.
  var rule: Int32 = -1
  /// Where that rule spreads flows.
  var flowHash: UInt32 = 0
  /// Who gets them; where it is not settled, by claims alone.
  var recipients: UInt64 = 0
  /// What the rule marks them with.
  var mark: UInt16 = 0
  /// Whether that is the same for each packet: the rule has no limit, spreads no flows, and copies none that it moves.
  var isSettled = true
  /// Why nobody has claimed them.
  var reason = DropReason.unclaimed
}

/// Verdicts on flows that were seen not long ago, so that the next packet of one is found by its key alone, as the exact-match
/// cache of Open vSwitch does it. It holds for one ``ForwardingTable``. One thread.
@usableFromInline
struct FlowCache: ~Copyable {
  @usableFromInline struct Entry: BitwiseCopyable {
    var key = FlowKey()
    var verdict = FlowVerdict()
  }

  // Invariant: `count` initialised entries. A key lies at one of two places that its hash has for it, if at all.
  @usableFromInline let entries: UnsafeMutablePointer<Entry>
  /// Who sends does not choose which flows displace each other.
  private let seed = (UInt64.random(in: 0...(.max)), UInt64.random(in: 0...(.max)))
  private var hits = 0
  private var misses = 0
  /// Packets to come that are not looked for.
  private var rest = 0

  /// A power of two. Of a fourth as many flows at a time nearly all are found.
  private static let count = 4096
  /// After so many packets that were not found, less than as many that were: the cache only costs, as while somebody scans.
  private static let patience = 256
  /// It is left alone for as many packets then.
  private static let restPackets = 4 * patience

  init() {
    entries = .allocate(capacity: Self.count)
    entries.initialize(repeating: Entry(), count: Self.count)
  }

  @inlinable
  deinit { entries.deallocate() }

  /// There is another table.
  /// - Parameter isSufficient: whether it asks for nothing that keys do not have.
  mutating func forget(isSufficient: Bool) {
    entries.update(repeating: Entry(), count: Self.count)
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
    let hash = key.hash(seed)
    let place = Self.firstPlace(hash)
    if entries[place].key == key {
      hits &+= 1
      return entries[place].verdict
    }
    return findElsewhere(key, hash)
  }

  @inline(never)
  private mutating func findElsewhere(_ key: FlowKey, _ hash: UInt64) -> FlowVerdict? {
    let place = Self.secondPlace(hash)
    if entries[place].key == key {
      hits &+= 1
      return entries[place].verdict
    }
    misses &+= 1
    if misses == Self.patience {
      if hits < misses { rest = Self.restPackets }
      (hits, misses) = (0, 0)
    }
    return nil
  }

  /// What is at its place goes to its other one, in place of what is there (Pagh, Rodler: Cuckoo Hashing, 2001, but for
  /// one step: what is forgotten is looked up again).
  mutating func remember(_ key: FlowKey, _ verdict: FlowVerdict) {
    let place = Self.firstPlace(key.hash(seed))
    let hash = entries[place].key.hash(seed)
    let first = Self.firstPlace(hash)
    entries[first == place ? Self.secondPlace(hash) : first] = entries[place]
    entries[place] = Entry(key: key, verdict: verdict)
  }

  @inline(__always)
  private static func firstPlace(_ hash: UInt64) -> Int {
    Int(truncatingIfNeeded: hash) & (count &- 1)
  }

  private static func secondPlace(_ hash: UInt64) -> Int {
    Int(truncatingIfNeeded: hash &>> 32) & (count &- 1)
  }
}
