import CLinux
import Glibc

/// The UNIX socket (SEQPACKET) on which a shared NIC's supervisor listens; its file is removed at the end.
struct SharingSocket: ~Copyable {
  let descriptor: Int32
  private let path: String

  /// - Throws: where it cannot be made, or another process listens there.
  init(path: String, _ policy: Policy) throws(SupervisorError) {
    guard (1...107).contains(path.utf8.count) else {
      throw .input("the socket's path has \(path.utf8.count) bytes; 1 to 107 are possible")
    }
    try Self.clear(path)
    let descriptor = try Self.socket()
    // Nobody can connect before owner and mode are as the policy says.
    let mask = umask(0o777)
    let bound = linux_bind_unix(descriptor, path)
    umask(mask)
    guard bound == 0 else {
      close(descriptor)
      throw .input("cannot listen on \(path): \(String(cString: strerror(-bound)))")
    }
    do throws(SupervisorError) {
      try Self.open(descriptor, path, policy)
    } catch {
      close(descriptor)
      unlink(path)
      throw error
    }
    self.descriptor = descriptor
    self.path = path
  }

  private static func open(
    _ descriptor: Int32, _ path: String, _ policy: Policy
  ) throws(SupervisorError) {
    // -1 leaves it as it is.
    guard chown(path, policy.owner ?? .max, policy.group ?? .max) == 0 else {
      throw .input(
        "the socket cannot be given to the policy's owner and group (\(String(cString: strerror(errno)))): run as root, or leave owner and group out"
      )
    }
    guard chmod(path, policy.mode) == 0, listen(descriptor, 64) == 0 else {
      throw .system("listening on \(path)", errno)
    }
  }

  deinit {
    close(descriptor)
    unlink(path)
  }

  private static func socket() throws(SupervisorError) -> Int32 {
    let type = SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
    let descriptor = Glibc.socket(AF_UNIX, Int32(type), 0)
    guard descriptor >= 0 else { throw .system("socket", errno) }
    return descriptor
  }

  /// A socket that nobody listens on any more is a leftover; anything else stays.
  private static func clear(_ path: String) throws(SupervisorError) {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else {
      throw .input("\(path) exists and is no socket; remove it or choose another path")
    }
    let probe = try socket()
    defer { close(probe) }
    guard linux_connect_unix(probe, path) == -ECONNREFUSED else {
      throw .input("a process already listens on \(path); stop it or choose another path")
    }
    unlink(path)
  }
}
