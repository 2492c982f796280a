import CLinux
import EmulatedPCI
import Glibc
import Wire

/// Why `martlet serve` does not start: one line with the remedy, and the exit code (64 for wrong arguments, 1 else).
struct ServeFailure: Error {
  var text: String
  var code: Int32

  static func usage(_ text: String) -> ServeFailure { ServeFailure(text: text, code: 64) }

  static func system(_ call: String, _ errno: Int32) -> ServeFailure {
    ServeFailure(text: "\(call): \(String(cString: strerror(errno)))", code: 1)
  }

  static func wire(_ error: WireError) -> ServeFailure {
    switch error {
    case .malformed(let text): return .usage(text)
    case .system(let what, let errno):
      var text = error.description
      if errno == ENOENT && what.contains("TAP") {
        text +=
          "; there is no /dev/net/tun: load the tun module (modprobe tun), or use another --wire"
      } else if errno == EPERM || errno == EACCES {
        text += "; run as root, or in a network namespace of your own (unshare -rn)"
      } else if errno == EBUSY {
        text += "; another process has it open"
      }
      return ServeFailure(text: text, code: 1)
    }
  }
}

/// A UNIX socket that listens: made here and removed at the end, or inherited and left alone.
struct ListeningSocket: ~Copyable {
  let descriptor: Int32
  private let path: String?

  /// - Parameters:
  ///   - kind: of the socket: a stream, or messages.
  ///   - mode: who may connect, where the socket is made here.
  init(
    path: String?, inherited: Int32?, kind: __socket_type = SOCK_STREAM, mode: mode_t = 0o700
  ) throws(ServeFailure) {
    if let inherited {
      guard path == nil else { throw .usage("--socket and --listen-fd exclude each other") }
      var listens: Int32 = 0
      var size = socklen_t(4)
      guard getsockopt(inherited, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0, listens != 0
      else { throw .usage("descriptor \(inherited) is no socket that listens") }
      descriptor = inherited
      self.path = nil
      return
    }
    guard let path else { throw .usage("say where to listen: --socket PATH or --vhost-user PATH") }
    guard (1...107).contains(path.utf8.count) else {
      throw .usage("the socket's path has \(path.utf8.count) bytes; 1 to 107 are possible")
    }
    try Self.clear(path, kind)
    let descriptor = socket(
      AF_UNIX, Int32(kind.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard descriptor >= 0 else { throw .system("socket", errno) }
    // Whoever can connect can drive the device and hand it memory: that is its owner's business alone.
    let mask = umask(0o777 & ~mode)
    let bound = linux_bind_unix(descriptor, path)
    umask(mask)
    guard bound == 0, listen(descriptor, 8) == 0 else {
      let error = bound == 0 ? errno : -bound
      close(descriptor)
      throw ServeFailure(
        text: "cannot listen on \(path): \(String(cString: strerror(error)))", code: 1)
    }
    self.descriptor = descriptor
    self.path = path
  }

  /// A socket that nobody listens on any more is a leftover; anything else stays.
  private static func clear(_ path: String, _ kind: __socket_type) throws(ServeFailure) {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else {
      throw .usage("\(path) exists and is no socket; remove it or choose another path")
    }
    let probe = socket(
      AF_UNIX, Int32(kind.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard probe >= 0 else { throw .system("socket", errno) }
    defer { close(probe) }
    guard linux_connect_unix(probe, path) == -ECONNREFUSED else {
      throw ServeFailure(
        text: "a server already listens on \(path); stop it or choose another path", code: 1)
    }
    unlink(path)
  }

  deinit {
    close(descriptor)
    if let path { unlink(path) }
  }
}

/// What a served device has seen.
struct ServeReport {
  let numbers: [(name: String, value: UInt64)]
  let refusals: [(name: String, value: UInt64)]
  let violations: [String]
  let violationCount: Int
  let faults: Int

  /// - Parameter numbers: what the server has counted; the model's own follow.
  init(
    numbers: [(name: String, value: UInt64)], refusals: [(name: String, value: UInt64)],
    model: any NetworkModel
  ) {
    self.numbers = numbers + model.namedCounters
    self.refusals = refusals
    violations = model.complaints
    violationCount = model.complaintCount
    faults = model.iommu.faultCount
  }

  var text: String {
    var lines = numbers.map { "\($0.name) \($0.value)" }
    lines += refusals.map { "refused_\($0.name) \($0.value)" }
    lines.append("iommu_faults \(faults)")
    lines.append("specification_violations \(violationCount)")
    lines += violations.map { "  \($0)" }
    return lines.joined(separator: "\n")
  }

  var json: String {
    func object(_ members: [(name: String, value: UInt64)]) -> String {
      "{" + members.map { "\"\($0.name)\":\($0.value)" }.joined(separator: ",") + "}"
    }
    let listed = violations.map { "\"\(escape($0))\"" }.joined(separator: ",")
    return "{\"counters\":\(object(numbers)),\"refusals\":\(object(refusals)),"
      + "\"iommu_faults\":\(faults),\"specification_violations\":\(violationCount),"
      + "\"violations\":[\(listed)]}"
  }

  private func escape(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\": result += "\\\(scalar)"
      case _ where scalar.value < 0x20: result += " "
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}

/// Writes a line at once: whoever waits for "ready" must not wait for a buffer to fill.
func writeLine(_ text: String, to descriptor: Int32) {
  let bytes = Array((text + "\n").utf8)
  var done = 0
  while done < bytes.count {
    let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + done, $0.count - done) }
    if count < 0 && errno != EINTR { return }
    done += max(0, count)
  }
}
