import CLinux
import Channel
import Glibc

/// Asks the supervisor of a run over its socket, as an administrator. One thread.
public struct AdministrationClient: ~Copyable {
  private let socket: Int32

  /// - Parameter path: the socket of `martlet run --share` or `--control`.
  public init(path: String) throws(AdministrationError) { socket = try Self.connect(path) }

  /// - Returns: a socket that is connected to a run's, the caller's to close.
  public static func connect(_ path: String) throws(AdministrationError) -> Int32 {
    let type = SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue
    let socket = Glibc.socket(AF_UNIX, Int32(type), 0)
    guard socket >= 0 else { throw .unreachable(path: path, errno: errno) }
    let result = linux_connect_unix(socket, path)
    guard result == 0 else {
      close(socket)
      throw .unreachable(path: path, errno: -result)
    }
    return socket
  }

  deinit { close(socket) }

  /// - Parameters:
  ///   - descriptors: go with the request; they stay the caller's.
  ///   - take: gets the descriptors of each message of the answer, which are closed afterwards.
  /// - Returns: the answer's messages, without the last, which is `end`.
  public func ask(
    _ request: String, _ descriptors: [Int32] = [],
    take: (ControlMessage, [Int32]) -> Void = { _, _ in }
  ) throws(AdministrationError) -> [ControlMessage] {
    // Where it has closed the connection already, it has said why.
    ControlMessage.send(request, descriptors: descriptors, to: socket)
    var answer: [ControlMessage] = []
    // Bounded: 64 instances and some.
    while answer.count < 1000 {
      var entry = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      guard poll(&entry, 1, 5000) > 0 else { throw .noAnswer(to: request) }
      guard case .message(let message, let descriptors) = ControlMessage.receive(from: socket)
      else { throw .closed }
      take(message, descriptors)
      for descriptor in descriptors { close(descriptor) }
      switch message.word {
      case "end": return answer
      case "refused": throw .refused(Refusal(message)?.reason ?? "no reason")
      case "unknown": throw .noSuchInstance
      default: answer.append(message)
      }
    }
    throw .endless
  }

  /// A descriptor that becomes readable when the supervisor ends, the caller's to close; -1 where it has ended already.
  func supervisorProcess() -> Int32 {
    var pid: pid_t = 0
    var uid = uid_t.max
    guard linux_peer(socket, &pid, &uid) == 0 else { return -1 }
    return linux_peer_process(socket, pid)
  }
}

/// Why a run could not be asked: one line, with the remedy where there is one.
public enum AdministrationError: Error, Sendable, Equatable {
  case unreachable(path: String, errno: Int32)
  case noAnswer(to: String)
  case closed
  case refused(String)
  case noSuchInstance
  /// More messages than any answer has.
  case endless
  /// What came is not what was asked for.
  case malformed(String)
}

extension AdministrationError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .unreachable(let path, let errno):
      "nobody can be reached at \(path) (\(String(cString: strerror(errno)))): name the socket of `martlet run --share` or `--control`"
    case .noAnswer(let request): "the supervisor has not answered `\(request)` in time"
    case .closed: "the supervisor has closed the connection"
    case .refused(let reason): reason
    case .noSuchInstance: "there is no such instance"
    case .endless: "the supervisor's answer does not end"
    case .malformed(let what): "the supervisor's answer makes no sense: \(what)"
    }
  }
}

extension ControlMessage {
  /// Its `name=value` pairs in order.
  public var pairs: [(name: String, value: String)] {
    rest.split(separator: " ").compactMap { pair in
      let parts = pair.split(separator: "=", maxSplits: 1).map(String.init)
      return parts.count == 2 ? (parts[0], parts[1]) : nil
    }
  }
}
