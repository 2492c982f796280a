/// The host's record of who owns each segment of an arena's receive part. It lies in memory that no instance sees, its own
/// or one that outlives the host, and believes nobody. One thread.
///
/// All segments are of one size. A segment is with the host, the device or the instance, and only moves
/// host -> device -> instance -> host, or back to the host when the device or the instance is no more. Where packets are
/// copied for an instance (``takeFree(length:)``) it goes host -> instance -> host, and instance -> sending ->
/// instance where the instance sends it in place.
public struct SegmentLedger: ~Copyable, @unchecked Sendable {
  @usableFromInline
  enum Owner: UInt8 {
    case host = 0
    case device = 1
    case instance = 2
    /// The instance's, while the device sends it in place.
    case sending = 3
  }

  // Invariant: `owners` has `count` initialised bytes; the first `freeCount` of `free` are the segments whose owner
  // is the host, each once.
  @usableFromInline let owners: UnsafeMutablePointer<UInt8>
  @usableFromInline let free: UnsafeMutablePointer<UInt32>
  @usableFromInline var freeCount: Int
  @usableFromInline var withDevice = 0
  @usableFromInline var beingSent = 0
  /// Segments in all.
  public let count: Int
  @usableFromInline let firstUnit: UInt32
  @usableFromInline let unitsShift: UInt32
  @usableFromInline let colours: UInt32
  /// Bytes before the first multiple of 64 at which a frame can begin, the device's header being in them.
  @usableFromInline let lead: UInt32
  /// Bytes of a segment.
  public let segmentSize: Int
  private let ownsOwners: Bool

  /// - Parameters:
  ///   - firstUnit: where the segments begin, in units of ``Descriptor/unit`` from the arena's start.
  ///   - byteCount: bytes to cut into segments.
  ///   - segmentSize: a power of two, at least 1024 bytes.
  ///   - isColoured: whether bytes may begin at different offsets (``lend(upTo:into:)``); not where a device fills every
  ///     buffer to one fixed size.
  ///   - headerBytes: what a device writes before each frame, up to 64. The frame then begins at a multiple of 64, and
  ///     the device copies whole cache lines.
  ///   - owners: a byte for each segment, 0 at first, in memory that outlives the ledger; nil for some of its own. With it,
  ///     no segment is anybody's before ``recover()``.
  public init(
    firstUnit: UInt32, byteCount: Int, segmentSize: Int = 2048, isColoured: Bool = true,
    headerBytes: Int = 0, owners: UnsafeMutablePointer<UInt8>? = nil
  ) {
    precondition(segmentSize >= 1024 && segmentSize & (segmentSize - 1) == 0)
    count = byteCount / segmentSize
    self.firstUnit = firstUnit
    self.segmentSize = segmentSize
    precondition((0...64).contains(headerBytes))
    colours = isColoured ? 7 : 0
    lead = UInt32(64 - headerBytes) & 63
    unitsShift = UInt32((segmentSize / Descriptor.unit).trailingZeroBitCount)
    ownsOwners = owners == nil
    self.owners = owners ?? .allocate(capacity: max(1, count))
    free = .allocate(capacity: max(1, count))
    for index in 0..<count { (free + index).initialize(to: UInt32(count - 1 - index)) }
    freeCount = 0
    if owners == nil {
      self.owners.initialize(repeating: Owner.host.rawValue, count: count)
      freeCount = count
    }
  }

  deinit {
    if ownsOwners { owners.deallocate() }
    free.deallocate()
  }

  /// Segments that the host has.
  @inlinable public var hostCount: Int { freeCount }
  /// Segments that the device has.
  @inlinable public var deviceCount: Int { withDevice }
  /// Segments that the instance has.
  @inlinable public var instanceCount: Int { count - freeCount - withDevice - beingSent }
  /// Segments of the instance that the device sends in place.
  @inlinable public var sendingCount: Int { beingSent }

  /// Appends up to `limit` free segments to the burst, as far as it has room: they are the device's now.
  ///
  /// The bytes of coloured segments begin at one of eight offsets, 64 apart: were all to begin at the same one, their
  /// first lines would share two sets of a first-level cache.
  @inlinable @_noLocks
  public mutating func lend(upTo limit: Int, into burst: inout Burst) {
    let taken = min(limit, min(freeCount, burst.room))
    if taken <= 0 { return }
    freeCount &-= taken
    let indices = free + freeCount
    let slots = burst.end
    for number in 0..<taken {
      let index = indices[number]
      owners[Int(index)] = Owner.device.rawValue
      // Neighbours begin half a page apart: of 2048 bytes, pairs share a colour and sixteen lie on different lines.
      let colour = (index &>> 1 & colours) &* 64 &+ lead
      (slots + number).store(
        place: UInt64(firstUnit &+ index &<< unitsShift) | UInt64(colour) &<< 32,
        rest: UInt64(UInt32(truncatingIfNeeded: segmentSize) &- colour))
    }
    burst.append(written: taken)
    withDevice &+= taken
  }

  /// Segments that the device has filled go to the instance: those of all slots but metadata. The driver has checked that
  /// the device had them; one that it had not traps.
  @inlinable @_noLocks
  public mutating func give(_ burst: borrowing Burst) { give(burst, count: burst.count) }

  /// The same for the burst's first `count` slots.
  @inlinable @inline(__always) @_noLocks
  public mutating func give(_ burst: borrowing Burst, count: Int) {
    precondition(count >= 0 && count <= burst.count)
    let slots = burst.start
    var given = 0
    for position in 0..<count where !(slots + position).isOffload {
      let number = self.number(of: slots[position].segment)
      precondition(number < self.count && owners[number] == Owner.device.rawValue)
      owners[number] = Owner.instance.rawValue
      given &+= 1
    }
    withDevice &-= given
  }

  /// The instance gives segments back: the burst's, which is empty afterwards.
  /// - Throws: what is wrong with one of them; those before it have been taken.
  @inlinable @_noLocks
  public mutating func takeBack(_ burst: inout Burst) throws(LedgerError) {
    let slots = burst.start
    var freed = freeCount
    for position in 0..<burst.count {
      let number = self.number(of: slots[position].segment)
      if number >= count || owners[number] != Owner.instance.rawValue {
        freeCount = freed
        throw refusal(of: slots[position].segment)
      }
      owners[number] = Owner.host.rawValue
      free[freed] = UInt32(truncatingIfNeeded: number)
      freed &+= 1
    }
    freeCount = freed
    burst.removeAll()
  }

  /// As the one for a burst, for one segment.
  @inlinable @_noLocks
  public mutating func give(_ segment: UInt32) {
    let number = self.number(of: segment)
    precondition(number < count && owners[number] == Owner.device.rawValue)
    owners[number] = Owner.instance.rawValue
    withDevice &-= 1
  }

  /// As the one for a burst, for one segment.
  @inlinable @_noLocks
  public mutating func takeBack(_ segment: UInt32) throws(LedgerError) {
    let number = self.number(of: segment)
    if number >= count || owners[number] != Owner.instance.rawValue { throw refusal(of: segment) }
    owners[number] = Owner.host.rawValue
    free[freeCount] = UInt32(truncatingIfNeeded: number)
    freeCount &+= 1
  }

  @inline(never) @usableFromInline @_noLocks
  func refusal(of segment: UInt32) -> LedgerError {
    number(of: segment) < count ? .notTheInstances(segment) : .noSegment(segment)
  }

  /// A segment that was lent or given is the host's again, whoever had it: it was not delivered, or its owner is no
  /// more.
  @inlinable @_noLocks
  public mutating func reclaim(_ segment: UInt32) {
    let number = self.number(of: segment)
    precondition(number < count && owners[number] != Owner.host.rawValue)
    precondition(owners[number] != Owner.sending.rawValue)
    if owners[number] == Owner.device.rawValue { withDevice &-= 1 }
    owners[number] = Owner.host.rawValue
    free[freeCount] = UInt32(truncatingIfNeeded: number)
    freeCount &+= 1
  }

  /// All that the instance still holds is the host's again.
  public mutating func reclaimFromInstance() {
    for index in 0..<count where owners[index] == Owner.instance.rawValue {
      reclaim(firstUnit &+ UInt32(index) &<< unitsShift)
    }
  }

  // MARK: Segments into which the host itself puts packets, and which the instance may send as they lie

  /// Takes a free segment, which the host is about to fill and then gives to the instance (``giveTaken(_:count:)``).
  /// - Parameter length: bytes that the host is about to put into it, at most ``segmentSize``.
  /// - Returns: its place and the length; nil where none is free. Bytes begin at one of eight offsets, as
  ///   ``lend(upTo:into:)`` has it, where so many fit behind it.
  @inlinable @inline(__always) @_noLocks
  public mutating func takeFree(length: UInt32) -> Descriptor? {
    if freeCount == 0 { return nil }
    freeCount &-= 1
    let index = free[freeCount]
    let colour = (index &>> 1 & colours) &* 64 &+ lead
    let fits = Int(colour) &+ Int(length) <= segmentSize
    return Descriptor(
      segment: firstUnit &+ index &<< unitsShift, offset: fits ? colour : 0, length: length)
  }

  /// Segments that were taken by ``takeFree(length:)`` go to the instance: those of the burst's first `count` slots, but for
  /// metadata.
  @inlinable @_noLocks
  public mutating func giveTaken(_ burst: borrowing Burst, count: Int) {
    precondition(count >= 0 && count <= burst.count)
    let slots = burst.start
    for position in 0..<count where !(slots + position).isOffload {
      let number = self.number(of: slots[position].segment)
      precondition(number < self.count && owners[number] == Owner.host.rawValue)
      owners[number] = Owner.instance.rawValue
    }
  }

  /// The device is about to send bytes of a segment in place.
  /// - Throws: the segment does not begin there or is not the instance's. The caller has checked that the bytes lie in
  ///   it.
  @inlinable @_noLocks
  public mutating func beginSending(_ segment: UInt32) throws(LedgerError) {
    let number = self.number(of: segment)
    if number >= count || owners[number] != Owner.instance.rawValue { throw refusal(of: segment) }
    owners[number] = Owner.sending.rawValue
    beingSent &+= 1
  }

  /// The device has done with a segment, which is the instance's again.
  @inlinable @_noLocks
  public mutating func endSending(_ segment: UInt32) {
    let number = self.number(of: segment)
    precondition(number < count && owners[number] == Owner.sending.rawValue)
    owners[number] = Owner.instance.rawValue
    beingSent &-= 1
  }

  /// The segment's number, or one beyond all where no segment begins there.
  @inlinable @inline(__always) @_noLocks
  func number(of segment: UInt32) -> Int {
    // What lies below the first segment wraps round, and what is no multiple of a segment gets its rest into the highest
    // bits: both are too large.
    let unit = segment &- firstUnit
    return Int(unit &>> unitsShift | unit &<< (32 &- unitsShift))
  }
}

/// A segment that was given back and cannot be.
public enum LedgerError: Error, Equatable, Sendable {
  /// No segment begins at this unit.
  case noSegment(UInt32)
  /// The segment at this unit is the host's or the device's: it was given back twice, or never given.
  case notTheInstances(UInt32)
}

extension LedgerError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .noSegment(let segment): "no segment begins at unit \(segment)"
    case .notTheInstances(let segment): "the segment at unit \(segment) is not the instance's"
    }
  }
}
