import CLinux
import Testing

@testable import Handles

/// The broker's rules alone: its clock is a number, its memory is facts.
@Suite struct HandleBrokerTests {
  let owner = HandlePeer(connection: 1, uid: 1000, process: .init(pid: 10, unique: 100))
  let receiver = HandlePeer(connection: 2, uid: 2000, process: .init(pid: 20, unique: 200))
  let stranger = HandlePeer(connection: 3, uid: 3000, process: .init(pid: 30, unique: 300))
  static let shrink = Int32(LINUX_F_SEAL_SHRINK)
  static let whole = Int32(LINUX_F_SEAL_SHRINK | LINUX_F_SEAL_GROW | LINUX_F_SEAL_SEAL)
  static let readers = whole | Int32(LINUX_F_SEAL_FUTURE_WRITE)

  func facts(_ bytes: UInt64 = 8192, seals: Int32 = whole, writable: Bool = true) -> MemoryFacts {
    var facts = MemoryFacts.zero
    facts.inode = 1
    facts.byteCount = bytes
    facts.seals = seals
    facts.isReadable = true
    facts.isWritable = writable
    facts.ownerUID = 1000
    facts.mode = 0o400
    return facts
  }

  func request(
    _ kind: MemoryHandle.Kind = .served, _ rights: MemoryHandle.Rights = .readWrite,
    _ offset: UInt64 = 0, _ bytes: UInt64 = 8192, process: ProcessIdentity? = nil,
    expiry: UInt64? = nil, uses: UInt64? = nil
  ) -> MemoryHandle.Request {
    .init(
      kind: kind, rights: rights, offset: offset, byteCount: bytes,
      receiver: .init(uid: 2000, process: process), expiry: expiry, uses: uses)
  }

  @Test(
    arguments: [
      (0, 0, .empty), (8192, 1, .outOfRange), (8191, 2, .outOfRange), (0, 8193, .outOfRange),
      (.max, 1, .outOfRange), (.max, 2, .outOfRange), (1, .max, .outOfRange),
      (.max - 8, 16, .outOfRange), (0, .max, .outOfRange), (4096, .max - 4095, .outOfRange),
      (1 << 63, 1 << 63, .outOfRange), (8191, 1, nil), (1, 8191, nil), (0, 8192, nil),
      (777, 1, nil),
    ] as [(UInt64, UInt64, HandleRefusal?)])
  func rangesLieInMemory(_ offset: UInt64, _ bytes: UInt64, _ expected: HandleRefusal?) {
    var broker = HandleBroker(administrator: 0)
    let got = refusal {
      _ = try broker.create(
        request(.served, .read, offset, bytes), memory: facts(), by: owner, now: 0)
    }
    #expect(got == expected)
    #expect(broker.count == (expected == nil ? 1 : 0))
    if let expected { #expect(broker.refusals[expected] == 1) }
  }

  @Test(
    arguments: [
      (0, 0, .empty), (0, 101, .outOfRange), (99, 2, .outOfRange), (100, 1, .outOfRange),
      (.max, 1, .outOfRange), (.max - 4000, 4002, .outOfRange), (1, .max, .outOfRange),
      (0, 100, nil), (99, 1, nil),
    ] as [(UInt64, UInt64, HandleRefusal?)])
  func accessesLieInTheRange(_ offset: UInt64, _ bytes: UInt64, _ expected: HandleRefusal?) throws {
    var broker = HandleBroker(administrator: 0)
    let id = try broker.create(
      request(.served, .readWrite, 1000, 100), memory: facts(), by: owner, now: 0
    ).id
    for writing in [false, true] {
      var range: Range<UInt64>?
      let got = refusal {
        range = try broker.access(
          id, offset: offset, byteCount: bytes, writing: writing, by: receiver, now: 0
        ).range
      }
      #expect(got == expected)
      #expect(range == (expected == nil ? 1000 + offset..<1000 + offset + bytes : nil))
    }
  }

  @Test func oneMessageIsBounded() throws {
    var broker = HandleBroker(administrator: 0)
    let id = try broker.create(request(), memory: facts(), by: owner, now: 0).id
    #expect(
      refusal {
        _ = try broker.access(id, offset: 0, byteCount: 4097, writing: false, by: receiver, now: 0)
      } == .tooLong)
    _ = try broker.access(id, offset: 4096, byteCount: 4096, writing: false, by: receiver, now: 0)
  }

  @Test func onlyTheReceiverIsServed() throws {
    var broker = HandleBroker(administrator: 0)
    let id = try broker.create(
      request(.mapped, process: receiver.process), memory: facts(), by: owner, now: 0
    ).id
    var recycled = receiver
    recycled.process = .init(pid: 20, unique: 201)
    var sibling = receiver
    sibling.process = .init(pid: 21, unique: 202)
    var otherUser = receiver
    otherUser.uid = 0
    for peer in [owner, stranger, recycled, sibling, otherUser] {
      // Who is not meant cannot tell a handle from a guess.
      #expect(refusal { _ = try broker.open(id, by: peer, now: 0) } == .unknownHandle)
    }
    #expect(broker.refusals == [.wrongReceiver: 5])
    #expect(refusal { _ = try broker.open(HandleID(), by: receiver, now: 0) } == .unknownHandle)
    #expect(broker.refusals[.unknownHandle] == 1)
    _ = try broker.open(id, by: receiver, now: 0)
    #expect(broker.granted == 1)
  }

  @Test func timeEnds() throws {
    var broker = HandleBroker(administrator: 0)
    let id = try broker.create(request(expiry: 100), memory: facts(), by: owner, now: 0).id
    _ = try broker.create(request(expiry: 200), memory: facts(), by: owner, now: 0)
    #expect(
      refusal { _ = try broker.create(request(expiry: 5), memory: facts(), by: owner, now: 5) }
        == .empty)
    _ = try broker.access(id, offset: 0, byteCount: 1, writing: false, by: receiver, now: 99)
    // Before anyone has swept, and after it.
    #expect(
      refusal {
        _ = try broker.access(id, offset: 0, byteCount: 1, writing: false, by: receiver, now: 100)
      } == .expired)
    #expect(broker.nextExpiry == 100)
    #expect(broker.expire(now: 99).isEmpty)
    #expect(broker.expire(now: 100).map(\.handle.number) == [1])
    #expect(broker.nextExpiry == 200)
    #expect(
      refusal {
        _ = try broker.access(id, offset: 0, byteCount: 1, writing: false, by: receiver, now: 100)
      } == .expired)
    #expect(
      refusal {
        _ = try broker.access(id, offset: 0, byteCount: 1, writing: false, by: stranger, now: 100)
      } == .unknownHandle)
    #expect(broker.expire(now: .max).map(\.isLastOfMemory) == [true])
    #expect(broker.nextExpiry == nil && broker.count == 0)
  }

  @Test func usesEnd() throws {
    var broker = HandleBroker(administrator: 0)
    let id = try broker.create(request(.mapped, uses: 3), memory: facts(), by: owner, now: 0).id
    _ = try broker.open(id, by: receiver, now: 0)
    // What is refused is no use.
    _ = refusal { _ = try broker.open(id, by: stranger, now: 0) }
    _ = refusal {
      _ = try broker.access(id, offset: 9000, byteCount: 1, writing: false, by: receiver, now: 0)
    }
    _ = try broker.access(id, offset: 0, byteCount: 1, writing: true, by: receiver, now: 0)
    _ = try broker.open(id, by: receiver, now: 0)
    #expect(refusal { _ = try broker.open(id, by: receiver, now: 0) } == .usedUp)
    #expect(
      refusal { _ = try broker.create(request(uses: 0), memory: facts(), by: owner, now: 0) }
        == .empty)
  }

  @Test func ownersAndAdministratorsRevoke() throws {
    var broker = HandleBroker(administrator: 500)
    let first = try broker.create(request(), memory: facts(), by: owner, now: 0)
    let second = try broker.create(request(), memory: facts(), by: owner, now: 0)
    let third = try broker.create(request(), memory: facts(), by: owner, now: 0)
    for peer in [receiver, stranger] {
      #expect(refusal { _ = try broker.revoke(.id(first.id), by: peer) } == .unknownHandle)
      #expect(refusal { _ = try broker.revoke(.number(1), by: peer) } == .unknownHandle)
      #expect(broker.next(after: 0, for: peer) == nil)
    }
    #expect(broker.refusals == [.notOwner: 4])
    #expect(try broker.revoke(.id(first.id), by: owner).isLastOfMemory == false)
    #expect(
      refusal {
        _ = try broker.access(
          first.id, offset: 0, byteCount: 1, writing: false, by: receiver, now: 0)
      } == .revoked)
    #expect(refusal { _ = try broker.revoke(.id(first.id), by: owner) } == .unknownHandle)
    #expect(broker.next(after: 0, for: owner)?.number == 2)
    var administrator = stranger
    administrator.uid = 500
    _ = try broker.revoke(.number(second.handle.number), by: administrator)
    var root = stranger
    root.uid = 0
    #expect(try broker.revoke(.number(third.handle.number), by: root).isLastOfMemory)
  }

  @Test func anOwnerThatGoesTakesItsHandles() throws {
    var broker = HandleBroker(administrator: 0)
    let id = try broker.create(request(), memory: facts(), by: owner, now: 0).id
    var again = owner
    again.connection = 9
    _ = try broker.create(request(), memory: facts(), by: again, now: 0)
    // The same file from another connection is another memory: a number of a file can be used again by the kernel.
    #expect(broker.endAll(of: 1).map(\.isLastOfMemory) == [true])
    #expect(broker.count == 1)
    #expect(
      refusal {
        _ = try broker.access(id, offset: 0, byteCount: 1, writing: false, by: receiver, now: 0)
      } == .revoked)
  }

  @Test func aUserHasItsShare() throws {
    var limits = HandleBroker.Limits()
    limits.handlesPerUser = 5000
    limits.memoriesPerUser = 2
    var broker = HandleBroker(administrator: 0, limits: limits)
    var ids: Set<HandleID> = []
    for number in 0..<5000 {
      let made = try broker.create(
        request(.served, .read, UInt64(number), 1), memory: facts(), by: owner, now: 0)
      ids.insert(made.id)
    }
    #expect(ids.count == 5000)
    #expect(
      refusal { _ = try broker.create(request(), memory: facts(), by: owner, now: 0) } == .tooMany)
    _ = try broker.create(request(), memory: facts(), by: stranger, now: 0)
    _ = try broker.revoke(.number(2500), by: owner)
    var other = facts()
    other.inode = 2
    _ = try broker.create(request(), memory: other, by: owner, now: 0)
    _ = try broker.revoke(.number(2501), by: owner)
    other.inode = 3
    #expect(
      refusal { _ = try broker.create(request(), memory: other, by: owner, now: 0) } == .tooMany)
    var listed = 0
    var last: UInt64 = 0
    while let next = broker.next(after: last, for: owner) {
      #expect(next.number > last)
      last = next.number
      listed += 1
    }
    #expect(listed == 4999)
    #expect(broker.endAll(of: owner.connection).filter(\.isLastOfMemory).count == 2)
    #expect(broker.count == 1)
    _ = try broker.create(request(), memory: other, by: owner, now: 0)
  }

  @Test func readersGetWhatNobodyCanWrite() {
    var broker = HandleBroker(administrator: 0)
    func make(_ request: MemoryHandle.Request, _ facts: MemoryFacts, _ cutter: MemoryFacts? = nil)
      -> HandleRefusal?
    {
      refusal { _ = try broker.create(request, memory: facts, cutter: cutter, by: owner, now: 0) }
    }
    let reading = request(.mapped, .read)
    #expect(make(reading, facts(seals: Self.readers, writable: false)) == nil)
    #expect(make(reading, facts(seals: Self.readers)) == .writableDescriptor)
    #expect(make(reading, facts(seals: Self.whole, writable: false)) == .notSealed)
    for missing in [
      LINUX_F_SEAL_SHRINK, LINUX_F_SEAL_GROW, LINUX_F_SEAL_SEAL, LINUX_F_SEAL_FUTURE_WRITE,
    ] {
      #expect(
        make(reading, facts(seals: Self.readers & ~Int32(missing), writable: false)) == .notSealed)
    }
    #expect(
      make(request(.mapped, .read, 0, 4096), facts(seals: Self.readers, writable: false))
        == .partOfMemory)
    #expect(
      make(request(.mapped, .read, 0, 5000), facts(5000, seals: Self.readers, writable: false))
        == .unaligned)
    #expect(make(request(.mapped), facts(seals: Self.readers)) == .readOnlyDescriptor)
    #expect(make(request(.mapped), facts(writable: false)) == .readOnlyDescriptor)
    #expect(make(request(), facts(seals: 0)) == .notSealed)
    #expect(make(reading, facts(seals: Self.readers, writable: false), facts()) == .descriptors)
  }

  @Test func pagesThatCanBeTakenAway() throws {
    var broker = HandleBroker(administrator: 0)
    let seals = Self.readers & ~Self.shrink
    let reader = facts(seals: seals, writable: false)
    let cutter = facts(seals: seals)
    func make(_ request: MemoryHandle.Request, _ facts: MemoryFacts, _ cutter: MemoryFacts?)
      -> HandleRefusal?
    {
      refusal { _ = try broker.create(request, memory: facts, cutter: cutter, by: owner, now: 0) }
    }
    #expect(make(request(.revocable), reader, cutter) == .receiverCouldCut)
    let reading = request(.revocable, .read)
    #expect(make(reading, reader, nil) == .descriptors)
    #expect(make(reading, reader, reader) == .readOnlyDescriptor)
    var other = cutter
    other.inode = 5
    #expect(make(reading, reader, other) == .descriptors)
    #expect(
      make(reading, facts(seals: Self.readers, writable: false), facts(seals: Self.readers))
        == .notSealed)
    var open = reader
    open.mode = 0o602
    #expect(make(reading, open, cutter) == .receiverCouldCut)
    var own = reader
    own.ownerUID = 2000
    #expect(make(reading, own, cutter) == .receiverCouldCut)
    var root = reading
    root.receiver.uid = 0
    #expect(make(root, reader, cutter) == .receiverCouldCut)
    #expect(make(reading, reader, cutter) == nil)
    #expect(make(reading, reader, cutter) == .alreadyShared)
  }

  @Test func idsAreTextBothWays() throws {
    let id = HandleID()
    #expect(id.text.utf8.count == 32 && HandleID(id.text) == id)
    for wrong in [
      "", String(id.text.dropLast()), id.text + "0", id.text.uppercased() + "g",
      String(repeating: "g", count: 32), "+" + id.text.dropLast(),
    ] {
      #expect(HandleID(wrong) == nil)
    }
    var other = Array(id.text)
    other[31] = other[31] == "0" ? "1" : "0"
    #expect(HandleID(String(other)) != id)
  }
}
