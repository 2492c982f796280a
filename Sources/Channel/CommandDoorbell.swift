import CLinux
import Glibc
import Memory

/// One end of a pair of connected sockets by which the ends of a command channel wake each other, and a host its
/// instances. Closed when the value goes away.
///
/// No eventfd: that is one file with one O_NONBLOCK flag for all that hold it, so whoever was given one can make the
/// others' calls block, fill it, or take a wake-up that was another's. Of a pair of sockets each end has its own, and no
/// call here waits, whatever the other end does.
public struct CommandDoorbell: ~Copyable, Sendable {
  public let descriptor: Int32

  /// - Parameter descriptor: one end of a pair; the value's from now on.
  public init(adopting descriptor: Int32) { self.descriptor = descriptor }

  deinit { close(descriptor) }

  /// Both ends of a new pair, close-on-exec.
  /// - Throws: the system's reason.
  public static func pair() throws(MemoryError) -> (server: Int32, client: Int32) {
    var ends: [Int32] = [-1, -1]
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
      throw .system(call: "socketpair", errno: errno)
    }
    return (ends[0], ends[1])
  }

  /// Wakes the other end. Where that has not read so many that no more fit, it is awake already.
  @inline(never)
  func ring() {
    var one: UInt64 = 1
    _ = send(descriptor, &one, 8, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
  }

  /// What there is to read at a doorbell.
  public enum State: Sendable {
    case silent
    case rung
    /// The other end is closed.
    case gone
  }

  /// Takes what has come, up to 64 rings.
  public func answer() -> State {
    var rings = InlineArray<64, UInt64>(repeating: 0)
    let count = recv(descriptor, &rings, 512, Int32(MSG_DONTWAIT))
    if count > 0 { return .rung }
    return count == 0 || (errno != EAGAIN && errno != EINTR) ? .gone : .silent
  }

  /// Waits until the other end rings or is closed, or for so long.
  func wait(milliseconds: Int32) {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    _ = poll(&entry, 1, milliseconds)
  }
}
