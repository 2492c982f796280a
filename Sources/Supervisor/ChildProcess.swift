import CLinux
import Glibc

/// A process that the supervisor has started: held by its pidfd, so that what is signalled or waited for is always
/// this process. Killed when the value goes away. It also dies with the thread that started it.
public struct ChildProcess: ~Copyable {
  public let name: String
  public let identifier: pid_t
  /// Becomes readable when the process has ended.
  public let descriptor: Int32
  /// Whether it has been waited for.
  public private(set) var hasEnded = false
  /// Becomes readable when the process stands in namespaces of its own and waits to be admitted; -1 where it does not.
  private(set) var gate: Int32 = -1

  /// Which namespaces of its own a process gets.
  public struct Isolation: OptionSet, Sendable {
    public var rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let user = Isolation(rawValue: LINUX_CLONE_NEWUSER)
    public static let network = Isolation(rawValue: LINUX_CLONE_NEWNET)
    /// All that there are: user, process ids, network, mounts, IPC, host name, control groups.
    public static let everything = Isolation(
      rawValue: LINUX_CLONE_NEWUSER | LINUX_CLONE_NEWPID | LINUX_CLONE_NEWNET
        | LINUX_CLONE_NEWNS | LINUX_CLONE_NEWIPC | LINUX_CLONE_NEWUTS | LINUX_CLONE_NEWCGROUP)
  }

  /// Starts a program.
  /// - Parameters:
  ///   - descriptors: element i becomes descriptor i of the process; -1 leaves that number closed. No others are
  ///     inherited.
  ///   - environment: "NAME=value" entries; nothing is inherited.
  ///   - waits: until it stands in its namespaces; otherwise its program begins after ``admit()``.
  public init(
    name: String, program: String, arguments: [String], environment: [String] = [],
    descriptors: [Int32], isolation: Isolation = [], waits: Bool = true
  ) throws(SupervisorError) {
    let executable = open(program, LINUX_O_PATH | O_CLOEXEC)
    guard executable >= 0 else {
      throw .cannotStart(
        name, "\(program): \(String(cString: strerror(errno))); build it with `make`")
    }
    defer { close(executable) }

    let hasUserNamespace = isolation.contains(.user)
    var gate: (Int32, Int32) = (-1, -1)
    if hasUserNamespace {
      var pair: [Int32] = [-1, -1]
      let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
      guard socketpair(AF_UNIX, type, 0, &pair) == 0 else { throw .system("socketpair", errno) }
      gate = (pair[0], pair[1])
    }
    defer {
      if gate.0 >= 0 { close(gate.0) }
      if gate.1 >= 0 { close(gate.1) }
    }

    var pidfd: Int32 = -1
    let pid = withCStrings([program] + arguments) { arguments in
      withCStrings(environment) { environment in
        linux_spawn(
          executable, arguments, environment, descriptors, Int32(descriptors.count),
          isolation.rawValue, gate.0, &pidfd)
      }
    }
    guard pid > 0 else {
      throw .cannotStart(name, Self.remedy(for: -pid, isolation: isolation))
    }
    if waits && hasUserNamespace {
      // Its end is seen here as an end of file.
      close(gate.0)
      gate.0 = -1
      do throws(SupervisorError) {
        try Self.admit(pid, name, at: gate.1)
      } catch {
        _ = linux_pidfd_send_signal(pidfd, SIGKILL)
        var status: Int32 = 0
        _ = waitpid(pid, &status, 0)
        close(pidfd)
        throw error
      }
    } else {
      swap(&self.gate, &gate.1)
    }
    self.name = name
    identifier = pid
    descriptor = pidfd
  }

  deinit {
    if !hasEnded {
      _ = linux_pidfd_send_signal(descriptor, SIGKILL)
      var status: Int32 = 0
      _ = waitpid(identifier, &status, 0)
    }
    close(descriptor)
    if gate >= 0 { close(gate) }
  }

  /// Lets a process go on that stands in namespaces of its own; waits until it does. Nothing where it has gone on.
  mutating func admit() throws(SupervisorError) {
    if gate < 0 { return }
    defer {
      close(gate)
      gate = -1
    }
    try Self.admit(identifier, name, at: gate)
  }

  private static func admit(_ pid: pid_t, _ name: String, at gate: Int32) throws(SupervisorError) {
    var byte: UInt8 = 0
    guard read(gate, &byte, 1) == 1 else { throw .cannotStart(name, "it ended at its start") }
    try mapIdentifiers(of: pid)
    var go: UInt8 = 1
    _ = send(gate, &go, 1, Int32(MSG_NOSIGNAL))
  }

  public func signal(_ signal: Int32) { _ = linux_pidfd_send_signal(descriptor, signal) }

  /// Waits for the end of the process, and kills it when that does not come in time.
  /// - Returns: how it ended.
  public mutating func end(withinMilliseconds limit: Int32) -> ProcessEnd {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    var timedOut = false
    if poll(&entry, 1, limit) == 0 {
      timedOut = true
      signal(SIGKILL)
    }
    var status: Int32 = 0
    while waitpid(identifier, &status, 0) < 0 && errno == EINTR {}
    hasEnded = true
    if timedOut { return .killedBecauseItHung }
    return status & 0x7f == 0 ? .exited(status >> 8 & 0xff) : .signalled(status & 0x7f)
  }

  /// Inside the namespace there is one user and one group, 0; outside they are nobody's where we are root, and our
  /// own where we are not: nothing else can be mapped then.
  private static func mapIdentifiers(of pid: pid_t) throws(SupervisorError) {
    let isRoot = geteuid() == 0
    let (user, group) = isRoot ? (65534, 65534) : (Int(geteuid()), Int(getegid()))
    // Whoever may not map others' groups must forbid the process to leave its own.
    let groups = isRoot ? [] : [("setgroups", "deny")]
    for (file, text) in groups + [("uid_map", "0 \(user) 1"), ("gid_map", "0 \(group) 1")] {
      let path = "/proc/\(pid)/\(file)"
      let descriptor = open(path, O_WRONLY | O_CLOEXEC)
      guard descriptor >= 0 else { throw .system("open \(path)", errno) }
      defer { close(descriptor) }
      let written = text.utf8.withContiguousStorageIfAvailable {
        write(descriptor, $0.baseAddress!, $0.count)
      }
      if written != text.utf8.count { throw .system("write \(path)", errno) }
    }
  }

  private static func remedy(for error: Int32, isolation: Isolation) -> String {
    let reason = String(cString: strerror(error))
    if isolation.contains(.user), error == EPERM || error == ENOSPC || error == EINVAL {
      return
        "\(reason); it needs user namespaces: `sysctl -w user.max_user_namespaces=10000` and, where it exists, `sysctl -w kernel.unprivileged_userns_clone=1`, or run as root"
    }
    return reason
  }
}

/// How a process ended.
public enum ProcessEnd: Equatable, Sendable, CustomStringConvertible {
  case exited(Int32)
  case signalled(Int32)
  case killedBecauseItHung

  public var description: String {
    switch self {
    case .exited(let code): "exited with code \(code)"
    case .signalled(SIGSYS):
      "was killed for a system call that its filter does not allow, and did not say which; the kernel's log may (`dmesg | grep type=1326`)"
    case .signalled(let number): "was ended by signal \(number)"
    case .killedBecauseItHung: "did not end when asked and was killed"
    }
  }
}

private func withCStrings<R>(
  _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R
) -> R {
  let copies = strings.map { strdup($0) } + [nil]
  defer { for copy in copies { free(copy) } }
  return copies.withUnsafeBufferPointer { body($0.baseAddress!) }
}
