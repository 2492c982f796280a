import CLinux
import Glibc

/// One process, and no later one that gets the same number.
public struct ProcessIdentity: Hashable, Sendable {
  /// Its number, as the broker sees it.
  public let pid: Int32
  /// Of all processes that ever had the number, this one: the inode of its pidfd, or when it started.
  public let unique: UInt64

  /// - Parameters:
  ///   - pid: the number.
  ///   - unique: what no other process with that number has.
  public init(pid: Int32, unique: UInt64) {
    self.pid = pid
    self.unique = unique
  }

  /// The process behind a pidfd, which stays the caller's.
  /// - Throws: ``HandleRefusal/noProcess``: it is no pidfd, or the process has ended or is not visible here.
  public init(pidfd: Int32) throws(HandleRefusal) {
    guard let pid = Self.number(pidfd), pid > 0 else { throw .noProcess }
    if linux_is_pidfs(pidfd) != 0 {
      var status = stat()
      guard fstat(pidfd, &status) == 0 else { throw .noProcess }
      self.init(pid: pid, unique: UInt64(status.st_ino))
    } else {
      guard let start = Self.start(pid) else { throw .noProcess }
      self.init(pid: pid, unique: start)
    }
    // What was read by number was the right process's if that has not ended meanwhile.
    guard linux_pidfd_send_signal(pidfd, 0) != -ESRCH else { throw .noProcess }
  }

  /// The process that has a number now.
  /// - Throws: ``HandleRefusal/noProcess``.
  public init(pid: Int32) throws(HandleRefusal) {
    let pidfd = linux_pidfd_open(pid)
    guard pidfd >= 0 else { throw .noProcess }
    defer { close(pidfd) }
    try self.init(pidfd: pidfd)
  }

  private static func number(_ pidfd: Int32) -> Int32? {
    for line in text("/proc/self/fdinfo/\(pidfd)").split(separator: "\n")
    where line.hasPrefix("Pid:") {
      return line.split(whereSeparator: { $0 == "\t" || $0 == " " }).last.flatMap { Int32($0) }
    }
    return nil
  }

  /// proc_pid_stat(5), field 22: in clock ticks after boot. The name before it may hold anything, parentheses too.
  private static func start(_ pid: Int32) -> UInt64? {
    let text = text("/proc/\(pid)/stat")
    guard let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[end...].split(separator: " ")
    return fields.count > 20 ? UInt64(fields[20]) : nil
  }

  private static func text(_ path: String) -> String {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return "" }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = read(file, &bytes, bytes.count)
    return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
  }
}
