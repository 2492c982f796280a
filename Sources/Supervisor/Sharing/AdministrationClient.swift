import CLinux
import Channel
import Glibc

/// Asks the supervisor of a shared NIC over its socket, as an administrator.
public struct AdministrationClient: ~Copyable {
  private let socket: Int32

  public init(path: String) throws(SupervisorError) {
    let type = SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue
    let socket = Glibc.socket(AF_UNIX, Int32(type), 0)
    guard socket >= 0 else { throw .system("socket", errno) }
    let result = linux_connect_unix(socket, path)
    guard result == 0 else {
      close(socket)
      throw .input(
        "nobody can be reached at \(path) (\(String(cString: strerror(-result)))): name the socket of `martlet run --share`"
      )
    }
    self.socket = socket
  }

  deinit { close(socket) }

  /// - Returns: the answer's messages, without the last, which is `end`.
  public func ask(_ request: String) throws(SupervisorError) -> [ControlMessage] {
    // Where it has closed the connection already, it has said why.
    ControlMessage.send(request, to: socket)
    var answer: [ControlMessage] = []
    // Bounded: 64 instances and some.
    while answer.count < 1000 {
      var entry = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      guard poll(&entry, 1, 5000) > 0 else {
        throw .timedOut(process: "supervisor", waitingFor: request)
      }
      guard case .message(let message, let descriptors) = ControlMessage.receive(from: socket)
      else { throw .input("the supervisor has closed the connection") }
      for descriptor in descriptors { close(descriptor) }
      switch message.word {
      case "end": return answer
      case "refused": throw .input(Refusal(message)?.reason ?? "refused")
      case "unknown": throw .input("there is no such instance")
      default: answer.append(message)
      }
    }
    throw .input("the supervisor's answer does not end")
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
