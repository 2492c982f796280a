import CLinux
import Channel
import Glibc
import Memory
import Testing

@testable import Handles

/// The service with real memory and sockets, in one process. Across users: Tests/System/handles.sh.
@Suite(.serialized) struct HandleServiceTests {
  let here = HandleClient.Receiver.user(getuid())

  @Test func aWholeArenaIsMapped() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    let arena = try Arena(byteCount: 8192, pageSize: .ordinary, name: "test")
    var owner = try broker.client()
    var receiver = try broker.client()
    let id = try owner.create(over: arena, rights: .readWrite, receiver: here).id
    var range = try receiver.open(id)
    #expect(range.byteCount == 8192 && range.rights == .readWrite && !range.isRevocable)
    var bytes = range.mutableBytes
    bytes.storeBytes(of: 7, toByteOffset: 5000, as: UInt8.self)
    #expect(arena.address.load(fromByteOffset: 5000, as: UInt8.self) == 7)
    // What is mapped stays so; no more is opened.
    try owner.revoke(id)
    #expect(refusal { _ = try receiver.open(id) } == .revoked)
    #expect(range.bytes.unsafeLoad(fromByteOffset: 5000, as: UInt8.self) == 7)
  }

  @Test func aRangeBelowAPageIsServed() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    let arena = try Arena(byteCount: 8192, pageSize: .ordinary, name: "test")
    for offset in 0..<8192 {
      arena.address.storeBytes(of: UInt8(offset % 251), toByteOffset: offset, as: UInt8.self)
    }
    var client = try broker.client()
    let id = try client.create(over: arena, range: 4000..<4200, rights: .readWrite, receiver: here)
      .id
    #expect(try client.read(id, offset: 90, byteCount: 20) == (4090..<4110).map { UInt8($0 % 251) })
    try client.write(id, offset: 199, [255])
    #expect(arena.address.load(fromByteOffset: 4199, as: UInt8.self) == 255)
    #expect(arena.address.load(fromByteOffset: 4200, as: UInt8.self) == 4200 % 251)
    #expect(refusal { try client.write(id, offset: 199, [1, 2]) } == .outOfRange)
    #expect(refusal { _ = try client.read(id, offset: 200, byteCount: 1) } == .outOfRange)
    #expect(refusal { _ = try client.read(id, offset: -1, byteCount: 1) } == .malformed)
    #expect(refusal { _ = try client.open(id) } == .notMapped)
    let reader = try client.create(over: arena, range: 4000..<4200, rights: .read, receiver: here)
      .id
    #expect(reader != id)
    #expect(refusal { try client.write(reader, offset: 0, [1]) } == .noRight)
    #expect(arena.address.load(fromByteOffset: 4000, as: UInt8.self) == 4000 % 251)
  }

  @Test func hugePagesAreServed() throws {
    guard let arena = try? Arena(byteCount: 4 << 20, pageSize: .huge2M, name: "test") else {
      return
    }
    let broker = try BrokerThread()
    defer { broker.end() }
    var client = try broker.client()
    let edge = 2 << 20
    let id = try client.create(
      over: arena, range: edge - 8..<edge + 8, rights: .readWrite, receiver: here
    ).id
    try client.write(id, offset: 0, 1...16)
    #expect(try client.read(id, offset: 4, byteCount: 8) == Array(5...12))
    #expect(arena.address.load(fromByteOffset: edge, as: UInt8.self) == 9)
  }

  @Test func readersCannotWrite() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    let memory = try PublishedMemory(byteCount: 4096, name: "test")
    memory.address.storeBytes(of: 42, as: UInt8.self)
    var client = try broker.client()
    let id = try client.create(over: memory, receiver: .process(getpid(), user: getuid())).id
    let range = try client.open(id)
    memory.address.storeBytes(of: 43, as: UInt8.self)
    #expect(range.bytes.unsafeLoad(as: UInt8.self) == 43)
    #expect(range.rights == .read)
    let anew = open("/proc/self/fd/\(memory.readerDescriptor)", O_RDWR)
    defer { if anew >= 0 { close(anew) } }
    for descriptor in [memory.readerDescriptor, memory.descriptor, anew] {
      #expect(linux_mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0) == nil)
      #expect(write(descriptor, "x", 1) == -1)
      #expect(ftruncate(descriptor, 0) == -1)
    }
  }

  @Test func anOwnerThatGoesTakesItsHandles() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    let arena = try Arena(byteCount: 4096, pageSize: .ordinary, name: "test")
    var receiver = try broker.client()
    let before = openings(of: [arena.descriptor])
    let id: HandleID
    do {
      var owner = try broker.client()
      id = try owner.create(over: arena, range: 0..<10, rights: .read, receiver: here).id
      #expect(try receiver.read(id, offset: 0, byteCount: 10).count == 10)
    }
    var reason: HandleRefusal?
    for _ in 0..<3000 where reason == nil {
      reason = refusal { _ = try receiver.read(id, offset: 0, byteCount: 10) }
      if reason == nil { usleep(10_000) }
    }
    #expect(reason == .revoked)
    #expect(try receiver.list() == [])
    #expect(comesBack(to: before, of: [arena.descriptor]))
  }

  @Test func contentsCanBeKept() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    var memory = try PublishedMemory(byteCount: 8192, isRevocable: true, name: "test")
    memory.address.storeBytes(of: 42, toByteOffset: 5000, as: UInt8.self)
    var client = try broker.client()
    let receiver = HandleClient.Receiver.user(getuid() &+ 1000)
    let made = try client.create(over: memory, receiver: receiver)
    #expect(refusal { _ = try client.create(over: memory, receiver: receiver) } == .alreadyShared)
    try memory.keepContents()
    try client.revoke(number: made.number)
    var status = stat()
    fstat(memory.readerDescriptor, &status)
    #expect(status.st_size == 0)
    #expect(memory.address.load(fromByteOffset: 5000, as: UInt8.self) == 42)
    memory.address.storeBytes(of: 1, as: UInt8.self)
    #expect(memory.address.load(as: UInt8.self) == 1)
  }

  @Test func timeTakesPagesAway() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    let memory = try PublishedMemory(byteCount: 4096, isRevocable: true, name: "test")
    var client = try broker.client()
    _ = try client.create(
      over: memory, receiver: .user(getuid() &+ 1000), limits: .init(milliseconds: 50))
    var status = stat()
    fstat(memory.readerDescriptor, &status)
    #expect(status.st_size == 4096)
    for _ in 0..<3000 where status.st_size != 0 {
      usleep(10_000)
      fstat(memory.readerDescriptor, &status)
    }
    #expect(status.st_size == 0)
    #expect(try client.list() == [])
  }

  @Test func whatIsNoSealedMemoryIsRefused() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    var client = try broker.client()
    var pair: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair)
    let path = "/tmp/handles-\(getpid())"
    let onTemporary = "/dev/shm/handles-\(getpid())"
    let regular = open(path, O_RDWR | O_CREAT, 0o600)
    let shared = open(onTemporary, O_RDWR | O_CREAT, 0o600)
    for file in [regular, shared] { ftruncate(file, 8192) }
    unlink(path)
    unlink(onTemporary)
    let unsealed = linux_memfd_create("unsealed", LINUX_MFD_ALLOW_SEALING)
    ftruncate(unsealed, 8192)
    let plain = linux_memfd_create("plain", 0)
    ftruncate(plain, 8192)
    let arena = try Arena(byteCount: 8192, pageSize: .ordinary, name: "test")
    let pathOnly = open("/proc/self/fd/\(arena.descriptor)", LINUX_O_PATH)
    let wrong: [(Int32, HandleRefusal)] = [
      (regular, .notMemory), (shared, .notSealed), (unsealed, .notSealed), (plain, .notSealed),
      (pair[0], .notMemory), (open("/", O_RDONLY), .notMemory),
      (open("/dev/zero", O_RDWR), .notMemory),
      (pathOnly, .notMemory), (linux_pidfd_open(getpid()), .notMemory),
      (eventfd(0, 0), .notMemory), (epoll_create1(0), .notMemory),
    ]
    #expect(try client.list() == [])
    let before = openings(of: wrong.map(\.0))
    for (descriptor, reason) in wrong {
      for kind in [MemoryHandle.Kind.served, .mapped] {
        #expect(
          refusal { _ = try client.create(kind, .readWrite, 0, 8192, here, .init(), [descriptor]) }
            == reason)
      }
    }
    #expect(
      refusal { _ = try client.create(.served, .read, 0, 1, here, .init(), []) } == .descriptors)
    #expect(
      refusal {
        _ = try client.create(.served, .read, 0, 1, here, .init(), [arena.descriptor, regular])
      } == .descriptors)
    #expect(
      refusal {
        _ = try client.create(
          .served, .read, 0, 1, .identified(pidfd: regular, user: 1), .init(), [arena.descriptor])
      } == .noProcess)
    // The broker is in this process: it has kept none.
    #expect(try client.list() == [])
    #expect(comesBack(to: before, of: wrong.map(\.0)))
    for (descriptor, _) in wrong { close(descriptor) }
    close(pair[1])
  }

  @Test func messagesThatMakeNoSense() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    let socket = try broker.socket()
    var waiting = timeval(tv_sec: 5, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &waiting, 16)
    func answer() -> String {
      var bytes = [UInt8](repeating: 0, count: 20000)
      let length = recv(socket, &bytes, bytes.count, 0)
      return String(decoding: bytes.prefix(max(0, length)), as: UTF8.self)
    }
    #expect(answer() == "hello version=1")
    let guess = HandleID().text
    let cases: [(String, String)] = [
      ("nonsense", "malformed"), (" ", "malformed"), ("open", "malformed"),
      ("open id=12", "malformed"),
      ("open id=\(guess)", "unknown-handle"), ("read id=\(guess)", "malformed"),
      ("read id=\(guess) offset=0 bytes=1", "unknown-handle"),
      ("read id=\(guess) offset=99999999999999999999 bytes=1", "malformed"),
      ("write id=\(guess) offset=0 hex=0", "malformed"),
      ("write id=\(guess) offset=0 hex=zz", "malformed"),
      ("revoke", "malformed"), ("revoke number=77", "unknown-handle"), ("list", "malformed"),
      ("create", "malformed"), ("create kind=served rights=x uid=0", "malformed"),
      ("create kind=served rights=r uid=-1 offset=0 bytes=1", "malformed"),
      ("create kind=served rights=r uid=0 offset=0 bytes=1 uses=-1", "malformed"),
      (
        "create kind=served rights=r uid=0 offset=0 bytes=1 milliseconds=18446744073709551615",
        "malformed"
      ),
      ("create kind=served rights=r uid=0 offset=0 bytes=1", "descriptors"),
      ("create kind=revocable rights=r uid=0 offset=0 bytes=1 process=1", "descriptors"),
      (String(repeating: "x", count: 16384), "malformed"),
    ]
    for (text, reason) in cases {
      #expect(ControlMessage.send(text, to: socket))
      #expect(answer() == "refused reason=\(reason)", "\(text.prefix(60))")
    }
    let long = [UInt8](repeating: 120, count: 17000)
    #expect(send(socket, long, long.count, 0) == 17000)
    #expect(answer() == "refused reason=malformed")
    let before = openings(of: [0, 1, 2])
    #expect(ControlMessage.send("list after=0", descriptors: [0, 1, 2, 0, 1, 2], to: socket))
    #expect(answer() == "refused reason=descriptors")
    #expect(ControlMessage.send("list after=0", to: socket))
    #expect(answer() == "end")
    #expect(comesBack(to: before, of: [0, 1, 2]))
    close(socket)
  }

  @Test func aPeerThatTakesNoAnswersIsLetGo() throws {
    let broker = try BrokerThread()
    defer { broker.end() }
    let socket = try broker.socket()
    var isClosed = false
    for _ in 0..<200_000 where !isClosed {
      let sent = ControlMessage.send("list after=0", to: socket, flags: Int32(MSG_DONTWAIT))
      if !sent && errno == EPIPE { isClosed = true }
      if !sent && !isClosed { usleep(100) }
    }
    #expect(isClosed)
    close(socket)
    var client = try broker.client()
    #expect(try client.list() == [])
  }

  @Test func connectionsAreBounded() throws {
    var limits = HandleBroker.Limits()
    limits.connectionsPerUser = 2
    let broker = try BrokerThread(limits: limits)
    defer { broker.end() }
    var first = try broker.client()
    do {
      let second = try broker.client()
      #expect(refusal { _ = try broker.client() } == .tooMany)
      _ = consume second
    }
    // Until the broker has seen that the second is gone.
    var isBack = false
    for _ in 0..<3000 where !isBack {
      isBack = refusal { _ = try broker.client() } == nil
      if !isBack { usleep(10_000) }
    }
    #expect(isBack)
    let counters = try first.counters()
    #expect(counters["refused_too_many", default: 0] >= 1)
  }

  @Test func theDeviceGetsWholePagesThatStay() throws {
    let service = try HandleService()
    var ends: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends)
    try service.accept(ends[1])
    let peer = HandlePeer(
      connection: 99, uid: getuid(), process: try ProcessIdentity(pid: getpid()))
    let arena = try Arena(byteCount: 16384, pageSize: .ordinary, name: "test")
    func make(_ kind: String, _ rights: String, _ offset: Int, _ bytes: Int, _ descriptor: Int32)
      throws -> HandleID
    {
      ControlMessage.send(
        "create kind=\(kind) rights=\(rights) uid=\(getuid()) offset=\(offset) bytes=\(bytes)",
        descriptors: [descriptor], to: ends[0])
      service.serve(now: 1)
      while true {
        guard case .message(let answer, _) = ControlMessage.receive(from: ends[0]) else { break }
        if let id = answer["id"].flatMap({ HandleID($0) }) { return id }
      }
      throw HandleError.noAnswer
    }
    let part = try make("served", "rw", 4096, 8192, arena.descriptor)
    do {
      let memory = try service.register(.init(id: part, isForReceive: true), by: peer, now: 1)
      #expect(
        memory.range == 4096..<12288 && memory.pageSize == 4096 && memory.rights == .readWrite)
      let view = linux_mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory.descriptor, 4096)
      view?.storeBytes(of: 9, as: UInt8.self)
      #expect(arena.address.load(fromByteOffset: 4096, as: UInt8.self) == 9)
      munmap(view, 4096)
      #expect(
        refusal {
          _ = try service.register(
            .init(id: part, isForReceive: false, granule: 2 << 20), by: peer, now: 1)
        } == .unaligned)
      var stranger = peer
      stranger.uid += 1
      #expect(
        refusal {
          _ = try service.register(.init(id: part, isForReceive: false), by: stranger, now: 1)
        } == .unknownHandle)
      #expect(service.takeEndedRegistrations() == [])
      let second = try service.register(.init(id: part, isForReceive: false), by: peer, now: 1)
      service.endRegistration(second.number)
      ControlMessage.send("revoke id=\(part.text)", to: ends[0])
      service.serve(now: 1)
      #expect(service.takeEndedRegistrations() == [memory.number])
      #expect(service.takeEndedRegistrations() == [])
      service.endRegistration(memory.number)
    }
    let odd = try make("served", "r", 4096, 100, arena.descriptor)
    #expect(
      refusal { _ = try service.register(.init(id: odd, isForReceive: false), by: peer, now: 1) }
        == .unaligned)
    let reading = try make("served", "r", 0, 4096, arena.descriptor)
    #expect(
      refusal { _ = try service.register(.init(id: reading, isForReceive: true), by: peer, now: 1) }
        == .noRight)
    _ = try service.register(.init(id: reading, isForReceive: false), by: peer, now: 1)
    let grows = linux_memfd_create("grows", LINUX_MFD_ALLOW_SEALING)
    defer { close(grows) }
    ftruncate(grows, 4096)
    _ = linux_fcntl(grows, LINUX_F_ADD_SEALS, Int(LINUX_F_SEAL_SHRINK))
    let growing = try make("served", "r", 0, 4096, grows)
    #expect(
      refusal {
        _ = try service.register(.init(id: growing, isForReceive: false), by: peer, now: 1)
      } == .notSealed)
    shutdown(ends[0], Int32(SHUT_RDWR))
    close(ends[0])
    service.serve(now: 1)
    #expect(service.connectionCount == 0)
  }
}
