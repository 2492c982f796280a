import CLinux
import Channel
import Glibc

/// The broker behind UNIX sockets of type SEQPACKET, for a poll loop: when ``descriptor`` is readable or
/// ``timeout(now:)`` is over, call ``serve(now:)``, which does not wait. One thread.
///
/// Whoever can connect may ask. What a peer is, the kernel says: SO_PEERCRED, SO_PEERPIDFD, and SCM_CREDENTIALS of each
/// message (unix(7)). Each request has one answer; a peer that does not take its answers is let go.
public final class HandleService {
  /// Readable when there is something to serve.
  public let descriptor: Int32
  /// Connections that are served.
  public private(set) var connectionCount = 0

  var broker: HandleBroker
  var memory = MemoryTable()
  /// Registrations of handles that have ended since they were last asked for.
  var endedRegistrations: [UInt64] = []
  /// Registrations of each handle, and the handle of each registration, by number.
  var registrations: [UInt64: Set<UInt64>] = [:]
  var registered: [UInt64: UInt64] = [:]
  var lastRegistration: UInt64 = 0

  private struct Connection {
    let descriptor: Int32
    let pidfd: Int32
    let peer: HandlePeer
  }

  private var listening: Int32 = -1
  private var users: Set<uid_t>?
  private var connections: [UInt64: Connection] = [:]
  private var perUser: [UInt32: Int] = [:]
  private var lastConnection: UInt64 = 0
  private var buffer = [UInt8](repeating: 0, count: ControlMessage.maximumBytes)

  /// Messages of one connection that are served before the next one's turn.
  private static let turn = 16
  private static let maximumDescriptors = 3
  /// As many as the kernel passes with one message (SCM_MAX_FD).
  private var descriptors = [Int32](repeating: -1, count: 253)
  private let closer = DescriptorCloser()

  /// - Parameter limits: how much one user may have.
  /// - Throws: ``HandleError/system(call:errno:)``.
  public init(limits: HandleBroker.Limits = .init()) throws(HandleError) {
    descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard descriptor >= 0 else { throw .system(call: "epoll_create1", errno: errno) }
    broker = HandleBroker(administrator: geteuid(), limits: limits)
  }

  deinit {
    for connection in connections.values {
      close(connection.descriptor)
      close(connection.pidfd)
    }
    close(descriptor)
  }

  /// Takes connections from a listening socket, which stays the caller's.
  /// - Parameters:
  ///   - socket: bound and listening.
  ///   - users: who may connect; nil for whoever can.
  public func listen(on socket: Int32, users: Set<uid_t>? = nil) {
    listening = socket
    self.users = users
    _ = linux_pass_credentials(socket)
    watch(socket, as: 0)
  }

  /// Serves a connected socket, which is the service's from now on.
  /// - Throws: ``HandleRefusal``, counted: its peer cannot be told, or its user has too many. The peer is told.
  public func accept(_ socket: Int32) throws(HandleRefusal) {
    do throws(HandleRefusal) {
      let (peer, pidfd) = try identify(socket)
      guard perUser[peer.uid, default: 0] < broker.limits.connectionsPerUser,
        closer.hasRoom(peer.uid)
      else {
        close(pidfd)
        throw .tooMany
      }
      connections[peer.connection] = Connection(descriptor: socket, pidfd: pidfd, peer: peer)
      perUser[peer.uid, default: 0] += 1
      connectionCount += 1
      watch(socket, as: peer.connection << 1)
      watch(pidfd, as: peer.connection << 1 | 1)
      ControlMessage.send("hello version=1", to: socket, flags: Int32(MSG_DONTWAIT))
    } catch {
      refuse(error, to: socket)
      close(socket)
      throw error
    }
  }

  /// Serves what is there, ends what has expired.
  /// - Parameter now: nanoseconds of any clock that goes on evenly, the same at each call.
  public func serve(now: UInt64) {
    for ended in broker.expire(now: now) { letGo(ended) }
    var events = [epoll_event](repeating: epoll_event(), count: 64)
    let count = epoll_wait(descriptor, &events, 64, 0)
    for event in events.prefix(Int(max(0, count))) {
      let name = event.data.u64
      if name == 0 {
        acceptAll()
      } else if let connection = connections[name >> 1] {
        let isDead = name & 1 != 0
        if isDead || !serve(connection, now) { drop(connection) }
      }
    }
  }

  /// When ``serve(now:)`` is due without an event, in its clock's nanoseconds; nil where nothing expires.
  public var nextExpiry: UInt64? { broker.nextExpiry }

  /// Milliseconds until ``serve(now:)`` is due without an event, for poll(2): -1 for no limit.
  public func timeout(now: UInt64) -> Int32 {
    guard let next = broker.nextExpiry else { return -1 }
    return next <= now ? 0 : Int32(min((next - now + 999_999) / 1_000_000, 1_000_000))
  }

  /// What has been counted: names and values.
  public var counters: [(name: String, value: UInt64)] {
    [
      ("handles", UInt64(broker.count)), ("connections", UInt64(connectionCount)),
      ("created", broker.created), ("granted", broker.granted),
    ]
      + HandleRefusal.allCases.map {
        ("refused_" + $0.rawValue.replacing("-", with: "_"), broker.refusals[$0] ?? 0)
      }
  }

  private func identify(
    _ socket: Int32
  ) throws(HandleRefusal) -> (peer: HandlePeer, pidfd: Int32) {
    var (uid, pid): (UInt32, Int32) = (0, 0)
    guard linux_peer(socket, &pid, &uid) == 0, linux_pass_credentials(socket) == 0
    else { throw .noProcess }
    guard users?.contains(uid) ?? true else { throw .foreignUser }
    // Before Linux 6.5 the process is found by its number; each message says then that it is still the one.
    let pidfd = linux_peer_process(socket, pid)
    guard pidfd >= 0 else { throw .noProcess }
    do throws(HandleRefusal) {
      let process = try ProcessIdentity(pidfd: pidfd)
      guard process.pid == pid else { throw .noProcess }
      lastConnection += 1
      return (HandlePeer(connection: lastConnection, uid: uid, process: process), pidfd)
    } catch {
      close(pidfd)
      throw error
    }
  }

  private func acceptAll() {
    for _ in 0..<Self.turn {
      let socket = linux_accept(listening)
      if socket < 0 { return }
      try? accept(socket)
    }
  }

  private func watch(_ watched: Int32, as name: UInt64) {
    var event = epoll_event(events: EPOLLIN.rawValue, data: epoll_data_t(u64: name))
    epoll_ctl(descriptor, EPOLL_CTL_ADD, watched, &event)
  }

  /// - Returns: false where the connection is over.
  private func serve(_ connection: Connection, _ now: UInt64) -> Bool {
    for _ in 0..<Self.turn {
      guard closer.hasRoom(connection.peer.uid) else {
        refuse(.tooMany, to: connection.descriptor)
        return false
      }
      var (count, sender): (Int32, Int32) = (0, 0)
      let length = linux_receive_identified(
        connection.descriptor, &buffer, buffer.count, &descriptors, Int32(descriptors.count),
        &count, &sender)
      var received = ReceivedDescriptors(
        Array(descriptors.prefix(Int(count))), of: connection.peer.uid,
        closer: closer)
      switch length {
      case -Int(EAGAIN), -Int(EINTR): return true
      case -Int(EMSGSIZE):
        guard refuse(.malformed, to: connection.descriptor) else { return false }
        continue
      case ...0: return false
      default: break
      }
      do throws(HandleRefusal) {
        guard sender == connection.peer.process.pid else { throw broker.count(.foreignSender) }
        guard Int(count) <= Self.maximumDescriptors else { throw broker.count(.descriptors) }
        let message = ControlMessage(String(decoding: buffer[..<length], as: UTF8.self))
        let answer =
          message.word == "create"
          ? (text: try create(message, &received, connection.peer, now), descriptor: nil)
          : try answer(message, received, connection.peer, now)
        guard
          ControlMessage.send(
            answer.text, descriptors: answer.descriptor.map { [$0] } ?? [],
            to: connection.descriptor, flags: Int32(MSG_DONTWAIT))
        else { return false }
      } catch {
        guard tell(error, to: connection.descriptor) else { return false }
      }
    }
    return true
  }

  @discardableResult
  private func refuse(_ refusal: HandleRefusal, to socket: Int32) -> Bool {
    tell(broker.count(refusal), to: socket)
  }

  private func tell(_ refusal: HandleRefusal, to socket: Int32) -> Bool {
    ControlMessage.send(
      "refused reason=\(refusal.rawValue)", to: socket, flags: Int32(MSG_DONTWAIT))
  }

  private func drop(_ connection: Connection) {
    let peer = connection.peer
    connections[peer.connection] = nil
    connectionCount -= 1
    perUser[peer.uid, default: 1] -= 1
    if perUser[peer.uid] == 0 { perUser[peer.uid] = nil }
    // Removed by hand: a copy of the socket in another process would keep it in the set.
    var event = epoll_event()
    epoll_ctl(descriptor, EPOLL_CTL_DEL, connection.descriptor, &event)
    epoll_ctl(descriptor, EPOLL_CTL_DEL, connection.pidfd, &event)
    close(connection.descriptor)
    close(connection.pidfd)
    for ended in broker.endAll(of: peer.connection) { letGo(ended) }
  }

  func letGo(_ ended: EndedHandle) {
    memory.release(ended)
    endedRegistrations += registrations.removeValue(forKey: ended.handle.number) ?? []
  }
}
