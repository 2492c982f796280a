import CLinux
import Channel
import Commands
import Glibc
import Handles
import Memory
import Testing

@testable import Supervisor

/// An application with a connection to the broker, and memory of its own.
final class Application {
  private let served: Served
  private var socket: Int32 = -1

  init(_ served: Served) throws {
    self.served = served
    var sockets: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &sockets)
    try served.handles.accept(sockets[0])
    socket = sockets[1]
    _ = answer()
  }

  deinit { leave() }

  func leave() {
    // A process that another test starts has a copy of each descriptor, until it executes its program.
    guard socket >= 0 else { return }
    shutdown(socket, Int32(SHUT_RDWR))
    close(socket)
    socket = -1
  }

  private func answer() -> ControlMessage? {
    guard case .message(let message, _) = ControlMessage.receive(from: socket) else { return nil }
    return message
  }

  func ask(_ text: String, _ descriptors: [Int32] = []) -> ControlMessage? {
    ControlMessage.send(text, descriptors: descriptors, to: socket, flags: 0)
    served.step()
    return answer()
  }

  /// A handle over a range of memory for this process's user.
  func handle(
    _ memory: borrowing Arena, _ range: Range<Int>? = nil, uid: uid_t = geteuid(),
    _ more: String = ""
  ) throws -> HandleID {
    let range = range ?? 0..<memory.byteCount
    let message = ask(
      "create kind=served rights=rw offset=\(range.lowerBound) bytes=\(range.count) uid=\(uid) \(more)",
      [memory.descriptor])
    return try #require(message?["id"].flatMap { HandleID($0) }, "\(message?.rest ?? "")")
  }
}

extension Commander {
  func submit(_ number: CommandNumber, _ handle: HandleID) throws {
    try submit(CommandSubmission(number, handle.high, handle.low))
  }
}

extension ServerTests {
  /// Applications' memory on its way to the device and back, as the supervisor sees it.
  @Suite struct RegistrationTests {
    private func memory(_ megabytes: Int = 2) throws -> Arena {
      try Arena(byteCount: megabytes << 20, pageSize: .ordinary, name: "application")
    }

    /// Registers with a host that agrees.
    private func register(
      _ handle: HandleID, _ one: Commander, _ served: Served
    ) throws -> MemoryRegistration? {
      try one.submit(.registerMemory, handle)
      served.serve()
      if let told = served.path.news("register").last {
        served.answer("registered", one, "offset=\(told["offset"] ?? "")")
      }
      let completion = try one.completion()
      return completion.status == .done ? MemoryRegistration(completion.values) : nil
    }

    @Test func memoryGoesToTheDeviceThenToTheHostThenToTheInstanceAndBack() throws {
      let served = try Served()
      let one = try served.commander("one")
      let application = try Application(served)
      let memory = try memory(16)
      let handle = try application.handle(memory, 4096..<(16 << 20))
      try one.submit(.registerMemory, handle)
      served.serve()
      let told = try #require(served.path.news("register").last)
      let record = try #require(served.server.records.first)
      let iova = Served.windowIOVA + UInt64(record.slot + record.registeredAt)
      #expect(told["offset"] == "\(record.registeredAt)" && told["from"] == "4096")
      #expect(served.path.maps[iova] == (16 << 20) - 4096)
      #expect(try one.status() == nil)
      served.answer("registered", one, "offset=\(record.registeredAt)")
      let answer = MemoryRegistration(try one.completion().values)
      #expect(
        answer
          == MemoryRegistration(
            position: UInt64(record.registeredAt), byteCount: (16 << 20) - 4096))
      // The same once more, and giving back what is not there.
      try one.submit(.registerMemory, handle)
      try one.submit(.unregisterMemory, HandleID())
      served.serve()
      #expect(try one.status() == .conflict)
      #expect(try one.status() == .notFound)

      try one.submit(.unregisterMemory, handle)
      try one.submit(.unregisterMemory, handle)
      served.serve()
      #expect(served.path.news("unregister").map { $0["offset"] } == ["\(record.registeredAt)"])
      #expect(try one.status() == .busy)
      // The device keeps it until the host has let go.
      #expect(served.path.maps[iova] != nil)
      served.answer("unregistered", one, "offset=\(record.registeredAt)")
      #expect(try one.status() == .done)
      #expect(served.path.maps[iova] == nil)
      #expect(served.count("registrations_made") == 1 && served.count("registrations_ended") == 1)
      #expect(served.path.toldBeforeMapped == 0)
    }

    @Test func theEndOfAHandleTakesItFromTheDeviceOnceTheHostHasLetGo() throws {
      for end in ["revoke", "leave", "expire"] {
        let served = try Served()
        let one = try served.commander("one")
        let application = try Application(served)
        let memory = try memory()
        let handle = try application.handle(
          memory, nil, uid: geteuid(), end == "expire" ? "milliseconds=100" : "")
        #expect(try register(handle, one, served) != nil)
        let before = served.path.maps.count
        switch end {
        case "revoke": #expect(application.ask("revoke id=\(handle.text)")?.word == "revoked")
        case "leave": application.leave()
        default: break
        }
        served.step(after: 200)
        let told = try #require(served.path.news("unregister").last, "\(end)")
        #expect(one.peer.next()?.word == "revoked")
        #expect(served.path.maps.count == before)
        served.answer("unregistered", one, "offset=\(told["offset"] ?? "")")
        #expect(served.path.maps.count == before - 1)
        // It is nobody's any more.
        try one.submit(.unregisterMemory, handle)
        try one.submit(.registerMemory, handle)
        served.serve()
        #expect(try one.status() == .notFound)
        #expect(try one.status() == .notFound)
        #expect(served.server.instance(one.id)?.registrations.isEmpty == true)
      }
    }

    @Test func aHandleThatEndsWhileItIsBeingRegisteredIsNeverTheInstances() throws {
      let served = try Served()
      let one = try served.commander("one")
      let application = try Application(served)
      let memory = try memory()
      let handle = try application.handle(memory)
      let before = served.path.maps.count
      try one.submit(.registerMemory, handle)
      served.serve()
      application.leave()
      served.step()
      let offset = try #require(served.path.news("register").last?["offset"])
      #expect(served.path.news("unregister").isEmpty)
      served.answer("registered", one, "offset=\(offset)")
      #expect(served.path.news("unregister").count == 1)
      served.answer("unregistered", one, "offset=\(offset)")
      #expect(try one.status() == .notFound)
      #expect(served.path.maps.count == before)
    }

    @Test func whatTheHostRefusesAndWhoseCredentialIsRevokedGoesBack() throws {
      let served = try Served()
      let one = try served.commander("one")
      let application = try Application(served)
      let memory = try memory()
      let before = served.path.maps.count
      let handle = try application.handle(memory)
      try one.submit(.registerMemory, handle)
      served.serve()
      var offset = try #require(served.path.news("register").last?["offset"])
      served.answer("refused", one, "what=register offset=\(offset) reason=no")
      #expect(try one.status() == .failed)
      #expect(served.path.maps.count == before)
      // Revoked while the host was asked.
      try one.submit(.registerMemory, handle)
      served.serve()
      offset = try #require(served.path.news("register").last?["offset"])
      let credential = try #require(served.server.records.first?.credential)
      served.server.commands.revoke(credential)
      served.answer("registered", one, "offset=\(offset)")
      #expect(served.path.news("unregister").count == 1)
      served.answer("unregistered", one, "offset=\(offset)")
      #expect(served.path.maps.count == before)
    }

    @Test func anInstanceThatEndsLeavesNothingWithTheDevice() throws {
      for hasRelay in [false, true] {
        let served = try Served()
        let one = try served.commander("one")
        let application = try Application(served)
        let first = try memory()
        let second = try memory()
        let handle = try application.handle(first)
        #expect(try register(handle, one, served) != nil)
        let other = try application.handle(second)
        #expect(try register(other, one, served) != nil)
        // One of them is on its way back.
        try one.submit(.unregisterMemory, handle)
        served.serve()
        served.path.hasRelay = hasRelay
        let unmaps = served.path.maps.count
        #expect(unmaps == 3)
        one.peer.leave()
        served.step()
        #expect(served.path.maps.isEmpty)
        if hasRelay {
          #expect(served.server.records.count == 1)
          for _ in 0..<unmaps { served.answer("unmapped", one) }
        }
        #expect(served.server.records.isEmpty)
        #expect(served.count("registrations_ended") == 2)
        #expect(served.handles.takeEndedRegistrations().isEmpty)
      }
    }

    @Test func hostileRequestsAreRefused() throws {
      let served = try Served()
      let one = try served.commander("one")
      let application = try Application(served)
      let memory = try memory()
      func status(_ handle: HandleID) throws -> CommandStatus? {
        try one.submit(.registerMemory, handle)
        served.serve()
        return try one.status()
      }
      // Guessed, another user's, of an odd size, used up.
      #expect(try status(HandleID()) == .notFound)
      #expect(try status(try application.handle(memory, uid: 12345)) == .notFound)
      #expect(try status(try application.handle(memory, 0..<4095)) == .denied)
      #expect(try status(try application.handle(memory, 512..<4608)) == .denied)
      // Its owner could make it larger, and a file without seals never gets as far.
      let growing = linux_memfd_create("growing", LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING)
      defer { close(growing) }
      ftruncate(growing, 8192)
      let text = "create kind=served rights=rw offset=0 bytes=8192 uid=\(geteuid())"
      #expect(application.ask(text, [growing])?["reason"] == "not-sealed")
      _ = linux_fcntl(growing, LINUX_F_ADD_SEALS, Int(LINUX_F_SEAL_SHRINK))
      let id = try #require(application.ask(text, [growing])?["id"].flatMap { HandleID($0) })
      #expect(try status(id) == .denied)
      #expect(served.path.news("register").isEmpty)
      #expect(served.path.maps.count == 1)
      #expect(served.count("refused_registrations") == 5)
    }

    @Test func thousandsOverTheSameMemoryAreBoundedAndNoneOverlaps() throws {
      let served = try Served()
      let one = try served.commander("one")
      let application = try Application(served)
      let memory = try memory()
      var positions: Set<UInt64> = []
      var refused = 0
      for _ in 0..<2000 {
        if let answer = try register(try application.handle(memory), one, served) {
          #expect(answer.position % UInt64(WindowPlan.granule) == 0)
          #expect(positions.insert(answer.position).inserted)
        } else {
          refused += 1
        }
      }
      #expect(positions.count == 32 && refused == 2000 - 32)
      // All end at once with their owner.
      application.leave()
      served.step()
      let told = served.path.news("unregister")
      #expect(told.count == 32)
      for message in told {
        served.answer("unregistered", one, "offset=\(message["offset"] ?? "")")
      }
      #expect(served.path.maps.count == 1)
      #expect(served.count("registrations_ended") == 2000 - refused)
    }
  }
}
