import CLinux
import Channel
import Glibc

/// The socket by which a run with one instance is asked for its counters (`stats`), for the pages that they are in
/// (`counters`), for another driver host (`restart`) and for its packets (`capture`): by this user and root. One thread;
/// nothing here waits.
final class RunControl {
  private let socket: SharingSocket
  private let policy: Policy
  private let closer = DescriptorCloser()
  private var connections: [Int32: PeerConnection] = [:]

  private static let maximumConnections = 16
  /// Milliseconds that a connection is kept.
  private static let limit: UInt64 = 10_000

  /// A request that the caller answers.
  struct Request {
    let connection: PeerConnection
    let restart: RestartRequest
  }

  init(path: String) throws(SupervisorError) {
    policy = .usual()
    socket = try SharingSocket(path: path, policy)
  }

  /// What to watch: when one becomes readable, ``step(_:at:)`` is due.
  var descriptors: [Int32] { [socket.descriptor] + connections.keys }

  /// Does all that is due.
  /// - Parameters:
  ///   - counters: asked for where somebody wants to see them.
  ///   - hand: hands somebody the pages that they are in.
  /// - Returns: who wants another driver host.
  func step(
    _ counters: () -> [(name: String, value: UInt64)], hand: (PeerConnection) -> Void,
    _ captures: CaptureService, at now: UInt64
  ) -> [Request] {
    captures.tidy(at: now)
    accept(at: now)
    var requests: [Request] = []
    for connection in connections.values {
      // Bounded: who talks without end is heard again at the next step.
      for _ in 0..<4 where connections[connection.socket] != nil {
        guard let message = next(connection, at: now) else {
          if connections[connection.socket] == nil { captures.end(connection) }
          break
        }
        if case .capturing = connection.stage {
          refuse(connection, "message: a capture is all that there is over this connection")
          captures.end(connection)
          break
        }
        switch message.word {
        case "stats": connection.say(statistics: counters())
        case "counters": hand(connection)
        case "restart":
          do throws(SupervisorError) {
            requests.append(
              Request(
                connection: connection, restart: try RestartRequest(message, uid: connection.uid)))
          } catch {
            connection.say(Refusal(reason: "restart: \(error)").text)
          }
        case "filter", "capture":
          if let reason = captures.obey(message, from: connection) {
            refuse(connection, "capture: \(reason)")
          }
        default: refuse(connection, "message: there is stats, counters, restart and capture")
        }
      }
    }
    return requests
  }

  private func accept(at now: UInt64) {
    for _ in 0..<Self.maximumConnections {
      let accepted = linux_accept(socket.descriptor)
      guard accepted >= 0,
        let connection = PeerConnection(
          socket: accepted, deadline: now + Self.limit, closer: closer)
      else { return }
      if !policy.administrators.contains(connection.uid) {
        connection.sayLast(
          Refusal(reason: "administrator: user \(connection.uid) is none").text)
      } else if connections.count >= Self.maximumConnections {
        connection.sayLast(Refusal(reason: "connections: there are enough").text)
      } else {
        connections[accepted] = connection
      }
    }
  }

  /// - Returns: nil where there is nothing to do; the connection is forgotten where it has come to its end.
  private func next(_ connection: PeerConnection, at now: UInt64) -> ControlMessage? {
    switch connection.next(at: now) {
    case .message(let message): return message
    case .end: connections[connection.socket] = nil
    case .offence(let what): refuse(connection, "\(what): nobody has asked for that")
    case .nothing:
      if let deadline = connection.deadline, now >= deadline {
        refuse(connection, "timeout: nothing was asked for in time")
      }
    }
    return nil
  }

  private func refuse(_ connection: PeerConnection, _ reason: String) {
    connection.sayLast(Refusal(reason: reason).text)
    connections[connection.socket] = nil
  }
}
