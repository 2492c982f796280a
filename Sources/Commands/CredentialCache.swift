import Channel

/// The credentials that are out, found by their ids: who was authenticated once is known by its id from then on.
///
/// A hash table with a bounded number of entries. The hash is keyed (SipHash with a random key of the process, as Swift's
/// `Hasher` has it): a client that makes up ids cannot choose where they are looked for. What has been revoked or replaced
/// is kept, so that its use is told from a guess, until its place is needed; the longest dead goes first. One thread.
public struct CredentialCache: ~Copyable, @unchecked Sendable {
  /// Credentials that it holds at most, dead ones included.
  public let capacity: Int
  // Invariant: `capacity` entries, and twice as many bucket heads, a power of two. A head, and an entry's `next`, is an
  // entry's place or -1; each entry in use is in the chain of its id's bucket, and no chain holds an entry twice.
  private let entries: UnsafeMutablePointer<Entry>
  private let heads: UnsafeMutablePointer<Int32>
  private let bucketMask: Int
  private var deaths: UInt64 = 0
  private var random = SystemRandomNumberGenerator()

  private struct Entry: BitwiseCopyable {
    var id = CredentialID(high: 0, low: 0)
    var state = State.unused
    var next: Int32 = -1
    var instance: UInt32 = 0
    var uid: UInt32 = 0
    var expiry: UInt64 = 0
    var lastSequence: UInt64 = 0
    /// Counts up with each credential that has had this place.
    var generation: UInt32 = 0
    var death: UInt64 = 0
  }

  private enum State: UInt8 {
    case unused, valid, revoked, stale
  }

  /// A credential that was good when a command was taken.
  @frozen @usableFromInline
  package struct Reference: BitwiseCopyable {
    var place: Int32
    var generation: UInt32
    package var uid: UInt32

    static let none = Reference(place: -1, generation: 0, uid: 0)
  }

  /// - Parameter capacity: 1 to 65536.
  public init(capacity: Int) {
    precondition((1...65536).contains(capacity))
    self.capacity = capacity
    entries = .allocate(capacity: capacity)
    entries.initialize(repeating: Entry(), count: capacity)
    var buckets = 2
    while buckets < 2 * capacity { buckets *= 2 }
    heads = .allocate(capacity: buckets)
    heads.initialize(repeating: -1, count: buckets)
    bucketMask = buckets - 1
  }

  deinit {
    entries.deallocate()
    heads.deallocate()
  }

  /// Makes a credential.
  /// - Parameters:
  ///   - instance: the only one whose channel may use it.
  ///   - uid: of the process, as the kernel said it.
  ///   - expiry: from then on it is no longer good, in nanoseconds of CLOCK_MONOTONIC; `UInt64.max` for never.
  ///   - now: the time by that clock: what has expired gives its place up.
  /// - Returns: nil where as many as there can be are valid.
  public mutating func issue(
    instance: UInt32, uid: UInt32, expiry: UInt64, now: UInt64
  ) -> CredentialID? {
    guard let place = vacate(now) else { return nil }
    let id = CredentialID(high: random.next(), low: random.next())
    let bucket = bucket(id)
    entries[place] = Entry(
      id: id, state: .valid, next: heads[bucket], instance: instance, uid: uid, expiry: expiry,
      generation: entries[place].generation &+ 1)
    heads[bucket] = Int32(place)
    return id
  }

  /// The first place that is free, or was the first to die. Slow: for new credentials only.
  private mutating func vacate(_ now: UInt64) -> Int? {
    var oldest: Int?
    for place in 0..<capacity {
      if entries[place].state == .unused { return place }
      if entries[place].state == .valid {
        if now < entries[place].expiry { continue }
        die(place, .stale)
      }
      if oldest.map({ entries[place].death < entries[$0].death }) ?? true { oldest = place }
    }
    if let oldest { unlink(oldest) }
    return oldest
  }

  private mutating func unlink(_ place: Int) {
    let bucket = bucket(entries[place].id)
    if heads[bucket] == place {
      heads[bucket] = entries[place].next
    } else {
      var before = Int(heads[bucket])
      while entries[before].next != place { before = Int(entries[before].next) }
      entries[before].next = entries[place].next
    }
    entries[place].state = .unused
  }

  private mutating func die(_ place: Int, _ state: State) {
    deaths += 1
    entries[place].state = state
    entries[place].death = deaths
  }

  /// From now on the credential is no longer good, commands that are being carried out included.
  /// - Returns: whether there was such a credential, and it was good.
  @discardableResult
  public mutating func revoke(_ id: CredentialID) -> Bool {
    guard let place = find(id), entries[place].state == .valid else { return false }
    die(place, .revoked)
    return true
  }

  /// Makes a credential in another's place, for the same instance and uid; the old one is stale from now on.
  /// - Returns: nil where the old one is not good.
  public mutating func replace(_ id: CredentialID, expiry: UInt64, now: UInt64) -> CredentialID? {
    guard let place = find(id), entries[place].state == .valid else { return nil }
    let (instance, uid) = (entries[place].instance, entries[place].uid)
    die(place, .stale)
    return issue(instance: instance, uid: uid, expiry: expiry, now: now)
  }

  /// The instance has ended: all of its credentials are stale.
  public mutating func end(instance: UInt32) {
    for place in 0..<capacity
    where entries[place].state == .valid && entries[place].instance == instance {
      die(place, .stale)
    }
  }

  /// Judges a command when it is taken, and notes its sequence number where it is good.
  /// - Parameters:
  ///   - instance: whose channel it came through.
  ///   - now: CLOCK_MONOTONIC, in nanoseconds.
  /// - Returns: why it is refused, or `done` and what to judge it by again.
  package mutating func admit(
    _ id: CredentialID, sequence: UInt64, instance: UInt32, now: UInt64
  ) -> (CommandStatus, Reference) {
    guard let place = find(id) else { return (.wrongCredential, .none) }
    let entry = entries + place
    if entry.pointee.state == .stale { return (.staleCredential, .none) }
    // Before all that would change something, or say more: it is another's.
    if entry.pointee.instance != instance { return (.foreignCredential, .none) }
    if entry.pointee.state == .revoked { return (.revokedCredential, .none) }
    if now >= entry.pointee.expiry { return (.expiredCredential, .none) }
    if sequence <= entry.pointee.lastSequence { return (.replayed, .none) }
    entry.pointee.lastSequence = sequence
    let reference = Reference(
      place: Int32(truncatingIfNeeded: place), generation: entry.pointee.generation,
      uid: entry.pointee.uid)
    return (.done, reference)
  }

  /// Judges a command again when its slow part is over.
  /// - Returns: `done` where it may stand.
  func judge(_ reference: Reference, now: UInt64) -> CommandStatus {
    let entry = entries[Int(reference.place)]
    guard entry.generation == reference.generation else { return .staleCredential }
    switch entry.state {
    case .valid: return now >= entry.expiry ? .expiredCredential : .done
    case .revoked: return .revokedCredential
    case .stale, .unused: return .staleCredential
    }
  }

  private func find(_ id: CredentialID) -> Int? {
    var place = heads[bucket(id)]
    while place >= 0 {
      if entries[Int(place)].id.isSame(as: id) { return Int(place) }
      place = entries[Int(place)].next
    }
    return nil
  }

  private func bucket(_ id: CredentialID) -> Int {
    var hasher = Hasher()
    hasher.combine(id.high)
    hasher.combine(id.low)
    return hasher.finalize() & bucketMask
  }
}
