import CLinux
import Channel
import Foundation
import Memory
import PlayedSupervisor
import Steering
import Testing

@testable import Stacks

/// An instance in Swift on a played supervisor and host.
@Suite struct InstanceTests {
  /// The instance's thread, and how it ended.
  final class Running: @unchecked Sendable {
    // Written by the thread before it ends, read after that.
    private var result: Result<Int32, StackError>?
    private let finished = DispatchSemaphore(value: 0)

    init(_ body: @escaping @Sendable () throws(StackError) -> Int32) {
      let thread = Thread { [self] in
        do throws(StackError) {
          result = .success(try body())
        } catch {
          result = .failure(error)
        }
        finished.signal()
      }
      thread.start()
    }

    /// The end, five seconds at most from now.
    func end() throws -> Result<Int32, StackError> {
      try #require(finished.wait(timeout: .now() + 5) == .success)
      return try #require(result)
    }

    func failure() throws -> String {
      guard case .failure(let error) = try end() else { return "" }
      return error.description
    }
  }

  func mirror(_ supervisor: PlayedSupervisor, mode: PollMode = .adaptive) -> Running {
    let socket = supervisor.instanceSocket
    return Running { () throws(StackError) -> Int32 in
      let environment = try InstanceEnvironment(SupervisorConnection(adopting: socket))
      return try environment.run { () throws(StackError) -> Int32 in
        let channel = InstanceChannel(environment)
        let stack = try MirrorStack(environment, InstanceArguments([]), channel: channel)
        var loop = InstanceLoop(stack: stack, channel: channel, mode: mode)
        return try loop.run()
      }
    }
  }

  func take(_ ring: inout RingConsumer, into burst: inout Burst) throws -> Int {
    let began = Date()
    while burst.isEmpty, began.timeIntervalSinceNow > -30 {
      try ring.pop(into: &burst)
      if burst.isEmpty { usleep(100) }
    }
    return burst.count
  }

  @Test(arguments: PollMode.allCases)
  func packetsGoBackInPlace(_ mode: PollMode) throws {
    let supervisor = try PlayedSupervisor(queues: 2)
    supervisor.sendWelcome()
    let running = mirror(supervisor, mode: mode)
    #expect(supervisor.hear() == "ready")
    var host = supervisor.hostEnd(1)
    var burst = Burst(capacity: 64)
    for round in 0..<50 {
      let segment = UInt32(round % 32) * 2
      let frame = supervisor.arena.address + Int(segment) * 1024
      for at in 0..<60 { frame.storeBytes(of: UInt8(at), toByteOffset: at, as: UInt8.self) }
      if round % 10 == 0 { usleep(3000) }
      burst.append(Descriptor(segment: segment, length: 60))
      host.receive.push(&burst)
      host.doorbell.ring()
      let count = try take(&host.transmit, into: &burst)
      try #require(count == 1)
      let sent = burst[0]
      #expect(sent.segment == segment && sent.length == 60)
      #expect(frame.load(as: UInt8.self) == 6 && frame.load(fromByteOffset: 6, as: UInt8.self) == 0)
      host.completion.push(&burst)
      host.doorbell.ring()
      let back = try take(&host.free, into: &burst)
      try #require(back == 1)
      let returned = burst[0].segment
      #expect(returned == segment)
      burst.removeAll()
    }
    supervisor.channel.askToEnd()
    ControlMessage.send("stop", to: supervisor.socket)
    #expect(try running.end().get() == 0)
    #expect(supervisor.hear() == "bye")
  }

  @Test func onlyTheQueueWithNewsIsRung() throws {
    let supervisor = try PlayedSupervisor(queues: 2)
    supervisor.sendWelcome()
    let environment = try InstanceEnvironment(
      SupervisorConnection(adopting: supervisor.instanceSocket))
    let channel = InstanceChannel(environment)
    let (first, second) = (
      supervisor.hostEnd(0).prepareToSleep(), supervisor.hostEnd(1).prepareToSleep()
    )
    #expect(first && second)
    var burst = Burst(capacity: 1)
    burst.append(Descriptor(segment: 64, length: 1))
    channel.ends[1].transmit.push(&burst)
    channel.ring()
    channel.ring()
    var value: UInt64 = 0
    #expect(read(supervisor.hostEvents[0], &value, 8) < 0)
    #expect(read(supervisor.hostEvents[1], &value, 8) == 8 && value == 1)
  }

  @Test func aFullCompletionRingIsNewsOnceItHasRoom() throws {
    let supervisor = try PlayedSupervisor()
    supervisor.sendWelcome()
    let environment = try InstanceEnvironment(
      SupervisorConnection(adopting: supervisor.instanceSocket))
    let channel = InstanceChannel(environment)
    var host = supervisor.hostEnd()
    var burst = Burst(capacity: 80)
    for tag in 0..<80 { burst.append(Descriptor(segment: 0, tag: UInt16(tag))) }
    host.completion.push(&burst)
    var value: UInt64 = 0
    for expected in [8, -1] {
      _ = host.prepareToSleep()
      var taken = Burst(capacity: 1)
      try channel.ends[0].completion.pop(into: &taken)
      channel.ring()
      #expect(read(supervisor.hostEvents[0], &value, 8) == expected)
    }
  }

  @Test(arguments: [PollMode.poll, .interrupt])
  func theReasonOfAnEndIsSaid(_ mode: PollMode) throws {
    let supervisor = try PlayedSupervisor()
    supervisor.sendWelcome()
    let running = mirror(supervisor, mode: mode)
    #expect(supervisor.hear() == "ready")
    for text in ["link down", "nonsense"] {
      ControlMessage.send(text, to: supervisor.socket)
      supervisor.channel.announceNews()
    }
    // It holds no more than it was given first.
    ControlMessage.send("shrink bytes=4096", to: supervisor.socket)
    ControlMessage.send("shrink bytes=\(PlayedSupervisor.arenaBytes)", to: supervisor.socket)
    supervisor.channel.announceNews()
    #expect(supervisor.hear() == "shrunk bytes=\(PlayedSupervisor.arenaBytes)")
    ControlMessage.send("closed reason=it flooded the ring", to: supervisor.socket)
    supervisor.channel.announceNews()
    #expect(try running.failure().contains("it flooded the ring"))
  }

  @Test(arguments: [PollMode.poll, .interrupt])
  func aHostThatClosesItIsHeard(_ mode: PollMode) throws {
    let supervisor = try PlayedSupervisor()
    supervisor.sendWelcome()
    let running = mirror(supervisor, mode: mode)
    #expect(supervisor.hear() == "ready")
    supervisor.channel.end.close(.notItsSegment)
    supervisor.hostEnd().doorbell.ringAlways()
    #expect(try running.failure().contains("closed this instance: not its segment"))
  }

  @Test func aSupervisorThatGoesEndsIt() throws {
    let supervisor = try PlayedSupervisor()
    supervisor.sendWelcome()
    let running = mirror(supervisor)
    #expect(supervisor.hear() == "ready")
    shutdown(supervisor.socket, Int32(SHUT_RDWR))
    #expect(try running.end().get() == 0)
  }

  @Test func aHostThatBreaksTheRulesEndsItWithAReason() throws {
    for ring in [0, 2] {
      let supervisor = try PlayedSupervisor()
      supervisor.sendWelcome()
      let running = mirror(supervisor)
      #expect(supervisor.hear() == "ready")
      // The producer's index of the receive or of the completion ring, as martlet_channel.h publishes its place.
      release_store32(supervisor.channel.endWord + (4096 - 64) + ring * 128, 65)
      ControlMessage.send("link up", to: supervisor.socket)
      #expect(try running.failure().contains("broke the channel's rules"))
      #expect(supervisor.hear()?.hasPrefix("error the driver host broke") == true)
    }
  }

  @Test func piecesOutsideTheReceivePartAreNotTouched() throws {
    let supervisor = try PlayedSupervisor()
    supervisor.sendWelcome()
    let running = mirror(supervisor)
    #expect(supervisor.hear() == "ready")
    var host = supervisor.hostEnd()
    var burst = Burst(capacity: 8)
    let wrong = [
      Descriptor(segment: .max, offset: .max, length: .max), Descriptor(segment: 64, length: 60),
      Descriptor(segment: 63, offset: 1000, length: 25), Descriptor(segment: 0, length: .max),
    ]
    for slot in wrong { burst.append(slot) }
    host.receive.push(&burst)
    host.doorbell.ring()
    var back: [UInt32] = []
    while back.count < wrong.count {
      guard try take(&host.free, into: &burst) > 0 else { break }
      for index in 0..<burst.count { back.append(burst[index].segment) }
      burst.removeAll()
    }
    #expect(back == wrong.map(\.segment))
    let isSilent = host.transmit.isEmpty()
    #expect(isSilent)
    supervisor.channel.askToEnd()
    ControlMessage.send("stop", to: supervisor.socket)
    #expect(try running.end().get() == 0)
  }

  @Test func memoryThatIsNoneIsRefusedAndSaid() throws {
    for place in 0..<3 {
      let supervisor = try PlayedSupervisor()
      let file = open("/dev/null", O_RDWR | O_CLOEXEC)
      defer { close(file) }
      var descriptors = supervisor.descriptors
      descriptors[place] = file
      supervisor.sendWelcome(descriptors: descriptors)
      #expect(try mirror(supervisor).failure().contains("memory"))
      #expect(supervisor.hear()?.hasPrefix("error") == true)
    }
    // Another size than the welcome says.
    let supervisor = try PlayedSupervisor()
    supervisor.sendWelcome(supervisor.welcome.text.replacing("slots=64", with: "slots=128"))
    #expect(!(try mirror(supervisor).failure().isEmpty))
  }

  @Test func descriptorsAreClosedWhateverHappens() throws {
    func count() -> Int { (3..<1024).count { fcntl($0, F_GETFD) >= 0 } }
    let before = count()
    for text in [nil, "refused reason=no", "welcome version=2", "hello"] as [String?] {
      let supervisor = try PlayedSupervisor()
      supervisor.sendWelcome(text)
      let socket = supervisor.instanceSocket
      _ = try? InstanceEnvironment(SupervisorConnection(adopting: socket))
    }
    // Other tests run beside this one, and come and go.
    #expect(count() < before + 16)
  }
}

/// Over a socket with a name, as `martlet attach` and programs of users do it.
@Suite struct AttachTests {
  /// A socket that listens, in a folder of its own.
  final class Listening {
    let folder: String
    let descriptor: Int32
    var path: String { folder + "/s" }

    init() throws {
      var name = Array("/tmp/martlet-attach-XXXXXX".utf8CString)
      try #require(mkdtemp(&name) != nil)
      folder = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
      descriptor = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0)
      var address = sockaddr_un()
      let length = linux_unix_address(&address, folder + "/s")
      let bound = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          bind(descriptor, $0, socklen_t(length))
        }
      }
      try #require(bound == 0 && listen(descriptor, 4) == 0)
    }

    /// The next connection and its first message.
    func accept() throws -> (Int32, ControlMessage) {
      var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      try #require(poll(&entry, 1, 5000) == 1)
      let connection = Glibc.accept(descriptor, nil, nil)
      entry.fd = connection
      try #require(poll(&entry, 1, 5000) == 1)
      guard case .message(let message, _) = ControlMessage.receive(from: connection) else {
        throw CocoaError(.fileReadUnknown)
      }
      return (connection, message)
    }

    deinit {
      close(descriptor)
      unlink(path)
      rmdir(folder)
    }
  }

  @Test func aProgramAttachesByItself() throws {
    let listening = try Listening()
    let path = listening.path
    let running = InstanceTests.Running { () throws(StackError) -> Int32 in
      try runMirror(socket: path, address: "10.0.0.3")
    }
    let (connection, message) = try listening.accept()
    defer { close(connection) }
    let request = try AttachRequest(message)
    #expect(
      request == AttachRequest(name: "mirror", claims: [try #require(Claim("ipv4:10.0.0.3"))]))
    let supervisor = try PlayedSupervisor()
    defer { close(supervisor.instanceSocket) }
    ControlMessage.send(
      supervisor.welcome.text, descriptors: supervisor.descriptors, to: connection)
    supervisor.channel.askToEnd()
    #expect(try running.end().get() == 0)
  }

  @Test func aRefusalIsSaidAndLeftForOthers() throws {
    let listening = try Listening()
    let connection = try SupervisorConnection.attach(
      path: listening.path, request: AttachRequest(name: "a", claims: []))
    let (peer, _) = try listening.accept()
    ControlMessage.send("refused reason=10.0.0.3 is taken by web", to: peer)
    close(peer)
    let refused = AttachError.refused("10.0.0.3 is taken by web")
    #expect(throws: refused) { try connection.peekWelcome() }
    #expect(throws: refused) { try connection.awaitWelcome() }
    #expect(throws: AttachError.ended) { try connection.awaitWelcome() }
  }

  @Test func whoIsNotThereIsNamed() {
    func attach(_ path: String, name: String = "a") throws(AttachError) {
      _ = try SupervisorConnection.attach(
        path: path, request: AttachRequest(name: name, claims: []))
    }
    #expect(throws: AttachError.noSupervisor(path: "/nowhere", errno: ENOENT)) {
      try attach("/nowhere")
    }
    #expect(throws: AttachError.noSupervisor(path: "/dev/null", errno: ECONNREFUSED)) {
      try attach("/dev/null")
    }
    let long = String(repeating: "x", count: 200)
    #expect(throws: AttachError.noSupervisor(path: long, errno: ENAMETOOLONG)) { try attach(long) }
    #expect(throws: AttachError.bad(name: "name", value: "a b")) {
      try attach("/nowhere", name: "a b")
    }
  }
}
