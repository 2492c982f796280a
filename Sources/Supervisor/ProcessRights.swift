import CLinux
import Glibc

/// What a process may do, as the kernel says (/proc), not as it was asked to be.
public struct ProcessRights: Sendable {
  public var identifier: pid_t
  public var name: String
  public var parent: pid_t
  public var user: String
  /// Effective, permitted, inheritable, bounding and ambient set, in hexadecimal.
  public var capabilities: [String: String]
  public var noNewPrivileges: Bool
  /// 0 none, 1 strict, 2 filter.
  public var seccompMode: Int
  public var seccompFilters: Int
  /// Kinds of namespaces that are not those of the caller.
  public var ownNamespaces: [String]
  /// nil where the kernel does not let the caller look.
  public var rootEntries: Int?
  public var descriptors: [String]?
  /// All of its threads, the first one included.
  public var threads: [Thread]
  public var limits: [String: String]

  /// The kinds of namespaces there are.
  public static let namespaceKinds = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"]

  /// A thread of a process: rights are each thread's own.
  public struct Thread: Sendable {
    public var identifier: pid_t
    public var name: String
    /// Cores that it may run on.
    public var cores: [Int]
    /// Whether its capabilities, privileges and system calls are those of the first thread.
    public var isLikeTheFirst: Bool
  }

  /// Whether nothing is left to take away from a driver host.
  public var isConfined: Bool {
    threads.allSatisfy(\.isLikeTheFirst)
      && capabilities.values.allSatisfy { $0.allSatisfy { $0 == "0" } } && noNewPrivileges
      && seccompMode == 2 && Set(ownNamespaces) == Set(Self.namespaceKinds)
      && (rootEntries ?? 0) == 0
  }

  /// The processes of all runs that can be seen from here, by program name.
  public static func ofRuns() -> [ProcessRights] {
    names(in: "/proc").compactMap { pid_t($0) }.sorted().compactMap { identifier in
      let name = text("/proc/\(identifier)/comm").split(separator: "\n").first.map(String.init)
      guard let name, name == "martlet-host" || name == "martlet-stack" else { return nil }
      return ProcessRights(identifier, name)
    }
  }

  init?(_ identifier: pid_t, _ name: String) {
    let fields = Self.fields("/proc/\(identifier)/status")
    guard let uid = fields["Uid"] else { return nil }
    self.identifier = identifier
    self.name = name
    parent = fields["PPid"].flatMap { pid_t($0) } ?? 0
    user = uid.split(separator: " ").first.map(String.init) ?? "?"
    capabilities = [:]
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
      capabilities[set] = fields[set] ?? "?"
    }
    noNewPrivileges = fields["NoNewPrivs"] == "1"
    seccompMode = fields["Seccomp"].flatMap { Int($0) } ?? 0
    seccompFilters = fields["Seccomp_filters"].flatMap { Int($0) } ?? 0
    ownNamespaces = Self.namespaceKinds.filter { kind in
      let theirs = Self.link("/proc/\(identifier)/ns/\(kind)")
      return theirs != nil && theirs != Self.link("/proc/self/ns/\(kind)")
    }
    rootEntries = Self.readableNames(in: "/proc/\(identifier)/root").map(\.count)
    descriptors = Self.readableNames(in: "/proc/\(identifier)/fd").map { numbers in
      numbers.compactMap { Int($0) }.sorted().map { number in
        "\(number) \(Self.link("/proc/\(identifier)/fd/\(number)") ?? "?")"
      }
    }
    threads = Self.names(in: "/proc/\(identifier)/task").compactMap { pid_t($0) }.sorted().map {
      Self.thread($0, of: identifier, first: fields)
    }
    limits = [:]
    for line in Self.text("/proc/\(identifier)/limits").split(separator: "\n") {
      for limit in ["Max core file size", "Max file size", "Max processes", "Max locked memory"]
      where line.hasPrefix(limit) {
        let rest = line.dropFirst(limit.count).split(separator: " ")
        limits[limit] = rest.first.map(String.init) ?? "?"
      }
    }
  }

  private static func thread(
    _ identifier: pid_t, of process: pid_t, first: [String: String]
  ) -> Thread {
    let own = fields("/proc/\(process)/task/\(identifier)/status")
    let rights = [
      "CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
      "Uid", "Gid",
    ]
    return Thread(
      identifier: identifier, name: own["Name"] ?? "?",
      cores: (0..<sysconf(Int32(_SC_NPROCESSORS_CONF))).filter {
        linux_may_run_on_core(identifier, Int32($0)) == 1
      },
      isLikeTheFirst: rights.allSatisfy { own[$0] != nil && own[$0] == first[$0] })
  }

  /// The `name: value` lines of a file.
  private static func fields(_ path: String) -> [String: String] {
    var fields: [String: String] = [:]
    for line in text(path).split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      if parts.count == 2 {
        fields[String(parts[0])] = parts[1].split(whereSeparator: \.isWhitespace).joined(
          separator: " ")
      }
    }
    return fields
  }

  private static func text(_ path: String) -> String {
    guard let file = fopen(path, "re") else { return "" }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 16384)
    let count = fread(&bytes, 1, bytes.count, file)
    return String(decoding: bytes[..<count], as: UTF8.self)
  }

  private static func link(_ path: String) -> String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let length = buffer.withUnsafeMutableBytes { bytes in
      readlink(path, bytes.baseAddress!.assumingMemoryBound(to: CChar.self), bytes.count)
    }
    return length < 0 ? nil : String(decoding: buffer[..<length], as: UTF8.self)
  }

  private static func names(in path: String) -> [String] { readableNames(in: path) ?? [] }

  private static func readableNames(in path: String) -> [String]? {
    guard let folder = opendir(path) else { return nil }
    defer { closedir(folder) }
    var result: [String] = []
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { result.append(name) }
    }
    return result
  }
}
