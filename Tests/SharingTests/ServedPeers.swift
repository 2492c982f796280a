import CLinux
import Channel
import Driver
import Glibc
import Handles
import Host
import Memory
import PCI
import Steering
import Testing
import VFIO

@testable import Supervisor

/// One after the other, so that what is open can be counted.
@Suite(.serialized) struct ServerTests {}

/// A driver host and a device in this process, which do as a test says.
final class PlayedPath: InstancePath {
  var heard: [ControlMessage] = []
  /// What the device may read, by IOVA.
  var maps: [UInt64: Int] = [:]
  /// Instances that the host has been told of while the device could not read their memory: there must be none.
  var toldBeforeMapped = 0
  var hasRelay = false
  private var slots: [UInt32: UInt64] = [:]

  func tell(_ text: String, _ descriptors: [Int32]) {
    let message = ControlMessage(text)
    heard.append(message)
    let id: UInt32 = message.number("id") ?? 0
    if message.word == "attach" { slots[id] = message.number("slot") }
    if ["attach", "extent", "register"].contains(message.word) {
      let position = (slots[id] ?? 0) + (message.number("offset") ?? 0)
      if maps[Served.windowIOVA + position] == nil { toldBeforeMapped += 1 }
    }
  }

  func map(_ memory: DMAMemory, iova: UInt64, id: UInt32) throws(PCIError) {
    maps[iova] = Int(memory.byteCount)
  }

  func forget(iova: UInt64, byteCount: Int) {
    #expect(maps.removeValue(forKey: iova) == byteCount)
  }

  func unmap(iova: UInt64, byteCount: Int, id: UInt32) throws(PCIError) -> Bool {
    guard maps.removeValue(forKey: iova) == byteCount else {
      throw .system(call: "unmap", errno: ENOENT)
    }
    return !hasRelay
  }

  /// What it has been told since the last time.
  func news(_ word: String) -> [ControlMessage] {
    defer { heard.removeAll { $0.word == word } }
    return heard.filter { $0.word == word }
  }
}

/// A server of instances on a socket of its own, with a clock that the test sets.
final class Served {
  static let windowIOVA: UInt64 = 1 << 32
  let path = PlayedPath()
  let server: SharingServer
  let socketPath: String
  let handles = try! HandleService()
  private let socket: SharingSocket
  var now: UInt64 = 1000
  /// The driver host answers at once.
  var hostAnswers = true

  init(_ policy: Policy = .usual(), captures: CaptureService? = nil) throws {
    socketPath = "/tmp/martlet-sharing-\(getpid())-\(UInt32.random(in: 0...(.max)))"
    socket = try SharingSocket(path: socketPath, policy)
    let message = ControlMessage(
      "ready mac=52:54:00:6d:61:72 mtu=1500 link=up queues=2 offloads=0 features=")
    let interface = try InterfaceDescription(message)
    let page = try CounterPage(capacity: DriverHost.counterCapacity(queues: 2, isShared: true))
    server = SharingServer(
      policy: policy, listener: socket.descriptor, path: path,
      interface: interface,
      window: WindowPlan(byteCount: 1 << 34, hostBytes: 8 << 20), windowIOVA: Self.windowIOVA,
      keeper: HugepageKeeper(), hasHugePages: false,
      commands: try InstanceCommands(interface, hostQueues: 2, counters: dup(page.descriptor)),
      handles: handles, captures: captures, report: { _ in })
  }

  /// Lets the server do what is due, and the host answer, until nothing is left.
  func step(after milliseconds: UInt64 = 0) {
    now += milliseconds
    for _ in 0..<4 {
      server.step(at: now)
      if !hostAnswers { continue }
      for message in path.news("attach") { hostSays("attached", message) }
      for message in path.news("claim") { hostSays("claimed", message) }
      for message in path.news("detach") { hostSays("detached", message) }
      for message in path.news("extent") { hostSays("extended", message) }
      for message in path.news("shrink") { hostSays("shrunk", message) }
    }
  }

  func hostSays(_ word: String, _ message: ControlMessage) {
    _ = server.hear(host: ControlMessage("\(word) id=\(message["id"] ?? "")"), at: now)
  }

  func count(_ name: String) -> UInt64 { server.counts[name] ?? 0 }

  func peer() -> Peer { Peer(path: socketPath) }

  /// A process that has attached and runs.
  func attached(_ name: String = "one", claims: String? = nil) throws -> Peer {
    let peer = peer()
    peer.say("attach version=2 name=\(name)" + (claims.map { " claims=\($0)" } ?? ""))
    step()
    _ = try peer.welcome()
    peer.say("ready")
    step()
    return peer
  }
}

/// The other end of a connection, well-behaved or not.
final class Peer {
  private(set) var socket: Int32

  init(path: String) {
    socket = Glibc.socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0)
    _ = linux_connect_unix(socket, path)
  }

  deinit { leave() }

  func leave() {
    // A process that another test starts has a copy of each descriptor, until it executes its program.
    guard socket >= 0 else { return }
    shutdown(socket, Int32(SHUT_RDWR))
    close(socket)
    socket = -1
  }

  func say(_ text: String, _ descriptors: [Int32] = []) {
    ControlMessage.send(text, descriptors: descriptors, to: socket, flags: Int32(MSG_DONTWAIT))
  }

  /// The next message, with its descriptors: the caller's to close.
  func nextWithDescriptors() -> (ControlMessage, [Int32])? {
    guard case .message(let message, let descriptors) = ControlMessage.receive(from: socket)
    else { return nil }
    return (message, descriptors)
  }

  /// The next message; its descriptors are closed. nil where there is none, or no connection.
  func next() -> ControlMessage? {
    guard case .message(let message, let descriptors) = ControlMessage.receive(from: socket)
    else { return nil }
    for descriptor in descriptors { close(descriptor) }
    return message
  }

  /// The reason of a refusal, up to its colon; nil where it is not refused.
  func refusal() -> String? {
    while let message = next() {
      if let reason = Refusal(message)?.reason { return String(reason.prefix { $0 != ":" }) }
    }
    return nil
  }

  func welcome() throws -> Welcome {
    guard case .message(let message, let descriptors) = ControlMessage.receive(from: socket)
    else { throw AttachError.ended }
    defer { for descriptor in descriptors { close(descriptor) } }
    return try Welcome(message, descriptorCount: descriptors.count)
  }

  /// The descriptors are the caller's to close.
  func welcomeAndDescriptors() throws -> (Welcome, [Int32]) {
    guard case .message(let message, let descriptors) = ControlMessage.receive(from: socket)
    else { throw AttachError.ended }
    return (try Welcome(message, descriptorCount: descriptors.count), descriptors)
  }

  var isClosed: Bool {
    if case .end = ControlMessage.receive(from: socket) { true } else { false }
  }
}

extension Served {
  /// Descriptors that this process has open for instances and for connections to this server. Other tests have theirs
  /// meanwhile.
  func descriptors() -> Int {
    (Int32(0)..<4096).count { number in
      guard fcntl(number, F_GETFD) >= 0 else { return false }
      var name = sockaddr_un()
      var length = socklen_t(MemoryLayout<sockaddr_un>.size)
      let isSocket =
        withUnsafeMutablePointer(to: &name) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(number, $0, &length) }
        } == 0
      if isSocket {
        let path = withUnsafeBytes(of: &name.sun_path) { String(decoding: $0, as: UTF8.self) }
        return path.prefix { $0 != "\0" } == socketPath
      }
      var link = [UInt8](repeating: 0, count: 256)
      let count = link.withUnsafeMutableBytes {
        readlink("/proc/self/fd/\(number)", $0.baseAddress!, $0.count)
      }
      return String(decoding: link[..<max(0, count)], as: UTF8.self).contains("martlet-instance")
    }
  }
}
