import CLinux

/// All handles: who made them, who may use them, what is left of them. No system call but the one for random ids; the
/// clock is the caller's. One thread.
public struct HandleBroker: ~Copyable {
  /// How much one user may have.
  public struct Limits: Sendable {
    /// Handles that are there at once.
    public var handlesPerUser = 4096
    /// Memory files behind them; each takes up to two descriptors of the broker.
    public var memoriesPerUser = 64
    /// Connections at once; each takes two descriptors of the broker.
    public var connectionsPerUser = 32

    /// 4096 handles over 64 memory files, by 32 connections.
    public init() {}
  }

  /// May see and revoke every handle, beside user 0.
  public let administrator: UInt32
  /// How much one user may have.
  public let limits: Limits
  /// How often each refusal was given.
  public private(set) var refusals: [HandleRefusal: UInt64] = [:]
  /// Handles made so far.
  public private(set) var created: UInt64 = 0
  /// Uses granted so far.
  public private(set) var granted: UInt64 = 0

  private var handles: [HandleID: MemoryHandle] = [:]
  private var ids: [UInt64: HandleID] = [:]
  private var lastNumber: UInt64 = 0
  /// Of the handles that are there, in order.
  private var numbers: [UInt64] = []
  private var perUser: [UInt32: Int] = [:]
  private var memories: [MemoryKey: Int] = [:]
  private var memoriesPerUser: [UInt32: Int] = [:]
  /// Why handles that are gone have ended, for their receivers; the oldest are forgotten.
  private var endings: [HandleID: (reason: HandleRefusal, receiver: MemoryHandle.Receiver)] = [:]
  private var endingOrder: [HandleID] = []
  private static let endingsKept = 4096
  /// Not after the first expiry of all.
  private var firstExpiry = UInt64.max

  /// - Parameters:
  ///   - administrator: the uid that the broker runs as.
  ///   - limits: how much one user may have.
  public init(administrator: UInt32, limits: Limits = Limits()) {
    self.administrator = administrator
    self.limits = limits
  }

  /// Handles that are there.
  public var count: Int { handles.count }

  /// Counts a refusal that was decided elsewhere, and says what the peer is told.
  public mutating func count(_ refusal: HandleRefusal) -> HandleRefusal {
    refusals[refusal, default: 0] += 1
    return refusal == .wrongReceiver ? .unknownHandle : refusal
  }

  // MARK: Making and ending

  /// Makes a handle.
  /// - Parameters:
  ///   - request: what the owner asks for.
  ///   - facts: of the descriptor that receivers get, or that the broker serves from.
  ///   - cutter: of the writable descriptor that comes with a revocable memory.
  ///   - peer: the owner.
  ///   - now: nanoseconds of the clock that expiries are in.
  /// - Throws: ``HandleRefusal``, counted: a rule of ``MemoryHandle/Kind`` or a limit is broken.
  public mutating func create(
    _ request: MemoryHandle.Request, memory facts: MemoryFacts, cutter: MemoryFacts? = nil,
    by peer: HandlePeer, now: UInt64
  ) throws(HandleRefusal) -> (id: HandleID, handle: MemoryHandle) {
    do throws(HandleRefusal) {
      let range = try Self.range(
        request.offset, request.byteCount, within: 0..<facts.byteCount)
      guard request.uses != 0, request.expiry.map({ $0 > now }) ?? true else { throw .empty }
      try request.check(range, facts, cutter)
      let key = MemoryKey(facts, owner: peer.connection)
      guard perUser[peer.uid, default: 0] < limits.handlesPerUser else { throw .tooMany }
      if memories[key] == nil {
        guard memoriesPerUser[peer.uid, default: 0] < limits.memoriesPerUser else {
          throw .tooMany
        }
      } else if request.kind == .revocable {
        throw .alreadyShared
      }
      let id = HandleID()
      guard handles[id] == nil else { throw .kernel }
      lastNumber += 1
      let handle = MemoryHandle(
        number: lastNumber, memory: key, kind: request.kind, rights: request.rights, range: range,
        receiver: request.receiver, owner: peer.connection, ownerUID: peer.uid,
        expiry: request.expiry, usesLeft: request.uses, facts: facts)
      handles[id] = handle
      ids[lastNumber] = id
      numbers.append(lastNumber)
      perUser[peer.uid, default: 0] += 1
      if memories[key] == nil { memoriesPerUser[peer.uid, default: 0] += 1 }
      memories[key, default: 0] += 1
      firstExpiry = min(firstExpiry, request.expiry ?? .max)
      created += 1
      return (id, handle)
    } catch {
      _ = count(error)
      throw error
    }
  }

  /// Ends a handle by its id or number. Its owner's user and administrators may.
  /// - Returns: the handle as it was, and whether its memory has no handle left.
  /// - Throws: ``HandleRefusal``, counted.
  public mutating func revoke(
    _ name: HandleName, by peer: HandlePeer
  ) throws(HandleRefusal) -> EndedHandle {
    let id: HandleID? =
      switch name {
      case .id(let id): id
      case .number(let number): ids[number]
      }
    guard let id, let handle = handles[id] else { throw count(.unknownHandle) }
    guard isVisible(handle, to: peer) else {
      _ = count(.notOwner)
      throw .unknownHandle
    }
    return end(id, .revoked)
  }

  /// Ends all handles of a connection that has gone.
  public mutating func endAll(of connection: UInt64) -> [EndedHandle] {
    handles.filter { $0.value.owner == connection }.map { end($0.key, .revoked) }
  }

  /// Ends what has expired.
  public mutating func expire(now: UInt64) -> [EndedHandle] {
    guard now >= firstExpiry else { return [] }
    let over = handles.filter { $0.value.expiry.map { $0 <= now } ?? false }
    let ended = over.map { end($0.key, .expired) }
    firstExpiry = handles.values.reduce(.max) { min($0, $1.expiry ?? .max) }
    return ended
  }

  /// When ``expire(now:)`` is due; nil where nothing expires.
  public var nextExpiry: UInt64? { firstExpiry == .max ? nil : firstExpiry }

  private mutating func end(_ id: HandleID, _ reason: HandleRefusal) -> EndedHandle {
    guard let handle = handles.removeValue(forKey: id) else {
      preconditionFailure("only handles that are there end")
    }
    ids[handle.number] = nil
    numbers.remove(at: position(after: handle.number - 1))
    perUser[handle.ownerUID, default: 1] -= 1
    if perUser[handle.ownerUID] == 0 { perUser[handle.ownerUID] = nil }
    endings[id] = (reason, handle.receiver)
    endingOrder.append(id)
    if endingOrder.count >= 2 * Self.endingsKept {
      for old in endingOrder.prefix(Self.endingsKept) { endings[old] = nil }
      endingOrder.removeFirst(Self.endingsKept)
    }
    let left = memories[handle.memory, default: 1] - 1
    memories[handle.memory] = left == 0 ? nil : left
    if left == 0 {
      memoriesPerUser[handle.ownerUID, default: 1] -= 1
      if memoriesPerUser[handle.ownerUID] == 0 { memoriesPerUser[handle.ownerUID] = nil }
    }
    return EndedHandle(handle: handle, isLastOfMemory: left == 0)
  }

  // MARK: Using

  /// Lets a receiver have the memory's descriptor.
  /// - Throws: ``HandleRefusal``, counted.
  public mutating func open(
    _ id: HandleID, by peer: HandlePeer, now: UInt64
  ) throws(HandleRefusal) -> MemoryHandle {
    try use(id, by: peer, now: now) { (handle) throws(HandleRefusal) in
      guard handle.kind != .served else { throw .notMapped }
      return handle
    }
  }

  /// Lets the broker read or write for a receiver.
  /// - Parameters:
  ///   - id: the handle's.
  ///   - offset: in bytes from the handle's first byte.
  ///   - byteCount: 1 to ``maximumAccess``.
  ///   - writing: whether to write.
  ///   - peer: who asks.
  ///   - now: the clock of ``create(_:memory:cutter:by:now:)``.
  /// - Returns: the handle, and the bytes of its memory that are meant.
  /// - Throws: ``HandleRefusal``, counted.
  public mutating func access(
    _ id: HandleID, offset: UInt64, byteCount: UInt64, writing: Bool, by peer: HandlePeer,
    now: UInt64
  ) throws(HandleRefusal) -> (handle: MemoryHandle, range: Range<UInt64>) {
    try use(id, by: peer, now: now) { (handle) throws(HandleRefusal) in
      guard !writing || handle.rights == .readWrite else { throw .noRight }
      let range = try Self.range(
        offset, byteCount, within: 0..<UInt64(handle.range.count))
      guard byteCount <= Self.maximumAccess else { throw .tooLong }
      let start = handle.range.lowerBound + range.lowerBound
      return (handle, start..<start + byteCount)
    }
  }

  /// The most bytes that one message reads or writes.
  public static let maximumAccess: UInt64 = 4096

  /// One use of a handle, which counts if `body` does not throw.
  mutating func use<Result>(
    _ id: HandleID, by peer: HandlePeer, now: UInt64,
    _ body: (MemoryHandle) throws(HandleRefusal) -> Result
  ) throws(HandleRefusal) -> Result {
    do throws(HandleRefusal) {
      guard let handle = handles[id] else {
        guard let ending = endings[id], peer.isReceiver(ending.receiver) else {
          throw .unknownHandle
        }
        throw ending.reason
      }
      guard peer.isReceiver(handle.receiver) else { throw .wrongReceiver }
      guard handle.expiry.map({ $0 > now }) ?? true else { throw .expired }
      guard handle.usesLeft != 0 else { throw .usedUp }
      let result = try body(handle)
      if let left = handle.usesLeft { handles[id]?.usesLeft = left - 1 }
      granted += 1
      return result
    } catch {
      throw count(error)
    }
  }

  /// The handle with the next number, of those that a peer may see: its own user's, or all for an administrator.
  public func next(after number: UInt64, for peer: HandlePeer) -> MemoryHandle? {
    for next in numbers[position(after: number)...] {
      if let handle = handle(next), isVisible(handle, to: peer) { return handle }
    }
    return nil
  }

  /// Where in `numbers` those begin that are greater.
  private func position(after number: UInt64) -> Int {
    var (low, high) = (0, numbers.count)
    while low < high {
      let middle = (low + high) / 2
      if numbers[middle] > number { high = middle } else { low = middle + 1 }
    }
    return low
  }

  private func handle(_ number: UInt64) -> MemoryHandle? { ids[number].flatMap { handles[$0] } }

  /// Whether a peer may see and revoke what others made.
  public func isAdministrator(_ peer: HandlePeer) -> Bool {
    peer.uid == 0 || peer.uid == administrator
  }

  private func isVisible(_ handle: MemoryHandle, to peer: HandlePeer) -> Bool {
    handle.ownerUID == peer.uid || isAdministrator(peer)
  }

  static func range(
    _ offset: UInt64, _ byteCount: UInt64, within bounds: Range<UInt64>
  ) throws(HandleRefusal) -> Range<UInt64> {
    guard byteCount > 0 else { throw .empty }
    let (end, wraps) = offset.addingReportingOverflow(byteCount)
    guard !wraps, offset >= bounds.lowerBound, end <= bounds.upperBound else { throw .outOfRange }
    return offset..<end
  }
}

/// How a handle is named to be revoked.
public enum HandleName: Sendable {
  /// By what was given away.
  case id(HandleID)
  /// By what lists call it.
  case number(UInt64)
}

/// A handle that has ended.
public struct EndedHandle: Sendable {
  /// As it was.
  public let handle: MemoryHandle
  /// Whether its memory has no handle left.
  public let isLastOfMemory: Bool
}

extension MemoryHandle.Request {
  /// The rules of each kind: what the kernel must already enforce.
  func check(
    _ range: Range<UInt64>, _ facts: MemoryFacts, _ cutter: MemoryFacts?
  ) throws(HandleRefusal) {
    guard facts.isReadable else { throw .notMemory }
    guard (cutter != nil) == (kind == .revocable) else { throw .descriptors }
    if rights == .readWrite {
      guard kind != .revocable else { throw .receiverCouldCut }
      guard facts.isWritable, !facts.forbidsNewWriters else { throw .readOnlyDescriptor }
    }
    if kind == .served {
      guard facts.has(LINUX_F_SEAL_SHRINK) else { throw .notSealed }
      return
    }
    guard range.count == facts.byteCount else { throw .partOfMemory }
    guard facts.byteCount % facts.pageSize == 0 else { throw .unaligned }
    guard facts.has(LINUX_F_SEAL_GROW, LINUX_F_SEAL_SEAL) else { throw .notSealed }
    if rights == .read {
      guard !facts.isWritable else { throw .writableDescriptor }
      guard facts.forbidsNewWriters else { throw .notSealed }
    }
    guard kind == .revocable, let cutter else {
      guard facts.has(LINUX_F_SEAL_SHRINK) else { throw .notSealed }
      return
    }
    guard cutter.isWritable else { throw .readOnlyDescriptor }
    guard cutter.device == facts.device, cutter.inode == facts.inode else { throw .descriptors }
    // No seal keeps a writer from cutting this memory: nobody else may open it for writing.
    guard facts.seals & Int32(LINUX_F_SEAL_SHRINK) == 0 else { throw .notSealed }
    guard receiver.uid != 0, receiver.uid != facts.ownerUID, facts.mode & 0o022 == 0 else {
      throw .receiverCouldCut
    }
  }
}
