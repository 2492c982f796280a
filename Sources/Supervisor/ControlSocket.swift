import CLinux
import Channel
import Glibc

/// The supervisor's end of a process's control socket. Messages are short texts: a word, then `name=value` pairs.
/// What arrives comes from a process that is not trusted: it is bounded, and never obeyed, only read.
public struct ControlSocket: ~Copyable {
  public let descriptor: Int32
  /// The other end, for the process; -1 once closed here.
  public private(set) var peer: Int32

  /// A connected pair.
  public init() throws(SupervisorError) {
    var ends: [Int32] = [-1, -1]
    let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw .system("socketpair", errno) }
    descriptor = ends[0]
    peer = ends[1]
  }

  deinit {
    close(descriptor)
    if peer >= 0 { close(peer) }
  }

  /// After the process has started, so that its end is seen here as an end of file.
  public mutating func closePeer() {
    if peer >= 0 { close(peer) }
    peer = -1
  }

  /// The next message, or nil when the peer is gone.
  /// - Throws: `timedOut` after `milliseconds`.
  public func receive(
    from process: String, waitingFor what: String, milliseconds: Int32
  ) throws(SupervisorError) -> ControlMessage? {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, milliseconds) > 0 else {
      throw .timedOut(process: process, waitingFor: what)
    }
    switch ControlMessage.receive(from: descriptor) {
    case .nothing, .end: return nil
    case .message(let message, let descriptors):
      for descriptor in descriptors { close(descriptor) }
      return message
    }
  }

  /// - Parameter descriptors: go with the message; they stay the caller's.
  public func send(_ text: String, descriptors: [Int32] = []) {
    let bytes = Array(text.utf8)
    _ = linux_send_descriptors(
      descriptor, bytes, bytes.count, descriptors, Int32(descriptors.count), 0)
  }
}
