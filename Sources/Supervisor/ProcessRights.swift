import CLinux
import Channel
import Glibc
import Host
import Memory

/// What a process may do, as the kernel says (/proc), not as it was asked to be.
public struct ProcessRights: Sendable {
  public var identifier: pid_t
  public var name: String
  public var parent: pid_t
  public var user: String
  /// Groups besides its own.
  public var groups: [String]
  /// Effective, permitted, inheritable, bounding and ambient set, in hexadecimal.
  public var capabilities: [String: String]
  public var noNewPrivileges: Bool
  /// 0 none, 1 strict, 2 filter.
  public var seccompMode: Int
  public var seccompFilters: Int
  /// Those among them that it has from its parent.
  public var inheritedFilters: Int
  /// What its own counters say of Landlock, of which /proc says nothing: the version that denies it all files, 0 for none.
  public var landlockVersion: UInt64?
  /// Kinds of namespaces that are not those of the caller.
  public var ownNamespaces: [String]
  /// Its users and groups, and whose they are outside: "inside outside count".
  public var userMap: [String]
  public var groupMap: [String]
  /// nil where the kernel does not let the caller look.
  public var rootEntries: Int?
  /// Each mount with its options.
  public var mounts: [Mount]
  public var descriptors: [Descriptor]?
  /// All of its threads, the first one included.
  public var threads: [Thread]
  /// Soft limits by the kernel's names.
  public var limits: [String: String]

  /// The kinds of namespaces there are.
  public static let namespaceKinds = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"]
  /// The sets of ``capabilities``, in the kernel's names and order.
  public static let capabilitySets = ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"]
  private static let shownLimits = [
    "Max address space", "Max core file size", "Max file size", "Max locked memory",
    "Max open files", "Max processes",
  ]

  /// A thread of a process: rights are each thread's own.
  public struct Thread: Sendable {
    public var identifier: pid_t
    public var name: String
    /// Cores that it may run on.
    public var cores: [Int]
    /// Whether its capabilities, privileges and system calls are those of the first thread.
    public var isLikeTheFirst: Bool
  }

  /// A mount of its mount namespace.
  public struct Mount: Sendable {
    public var point: String
    public var options: [Substring]
    public var isReadOnly: Bool { options.contains("ro") }
  }

  /// An open descriptor.
  public struct Descriptor: Sendable {
    public var number: Int
    /// Where it leads, as the kernel names it.
    public var target: String

    /// What it is, for people: "socket", "eventfd", "memory", ...; a path for all that is none of these.
    public var kind: String {
      switch target {
      case _ where target.hasPrefix("socket:"): "socket"
      case _ where target.hasPrefix("pipe:"): "pipe"
      case _ where target.hasPrefix("/memfd:"): "memory"
      case _ where target.hasPrefix("anon_inode:"):
        String(target.dropFirst("anon_inode:".count).filter { $0 != "[" && $0 != "]" })
      default: target
      }
    }

    /// The standard output and error are the run's; what else a driver host may hold has no path.
    var isWanted: Bool {
      number == 1 || number == 2
        || ["socket", "pipe", "memory", "eventfd", "eventpoll", "vfio-device"].contains(kind)
    }
  }

  /// Numbers of open descriptors, by what they are.
  public var descriptorsByKind: [(kind: String, numbers: [Int])] {
    Dictionary(grouping: descriptors ?? [], by: \.kind).sorted { $0.key < $1.key }.map {
      ($0.key, $0.value.map(\.number))
    }
  }

  /// Whether it is a driver host, or one that stands by.
  public var isDriverHost: Bool { name == DriverHost.name || isStandingBy }
  /// Whether it is a stage between driver and instances.
  public var isStage: Bool { name == StageDescriptor.processName }
  /// Whether it is to have no more rights than a driver host.
  public var isToBeConfined: Bool { isDriverHost || isStage }
  /// Whether it waits for a device, and has none.
  public var isStandingBy: Bool { name == DriverHost.standbyName }

  /// The processes of all runs that can be seen from here, by program name.
  public static func ofRuns() -> [ProcessRights] {
    ProcessFiles.names(in: "/proc").compactMap { pid_t($0) }.sorted().compactMap { identifier in
      let comm = ProcessFiles.text("/proc/\(identifier)/comm")
      let name = comm.split(separator: "\n").first.map(String.init)
      let known = [
        DriverHost.name, DriverHost.standbyName, StageDescriptor.processName, "martlet-stack",
      ]
      guard let name, known.contains(name) else { return nil }
      return ProcessRights(identifier, name)
    }
  }

  /// Those who have started them.
  public static func supervisors(of processes: [ProcessRights]) -> [ProcessRights] {
    let hosts = processes.filter(\.isDriverHost)
    return Set(hosts.map(\.parent)).sorted().compactMap { ProcessRights($0, "martlet") }
  }

  init?(_ identifier: pid_t, _ name: String) {
    let folder = "/proc/\(identifier)"
    let fields = ProcessFiles.fields("\(folder)/status")
    guard let uid = fields["Uid"] else { return nil }
    self.identifier = identifier
    self.name = name
    parent = fields["PPid"].flatMap { pid_t($0) } ?? 0
    user = uid.split(separator: " ").first.map(String.init) ?? "?"
    groups = (fields["Groups"] ?? "").split(separator: " ").map(String.init)
    capabilities = [:]
    for set in Self.capabilitySets { capabilities[set] = fields[set] ?? "?" }
    noNewPrivileges = fields["NoNewPrivs"] == "1"
    seccompMode = fields["Seccomp"].flatMap { Int($0) } ?? 0
    seccompFilters = fields["Seccomp_filters"].flatMap { Int($0) } ?? 0
    let above = ProcessFiles.fields("/proc/\(parent)/status")
    inheritedFilters = above["Seccomp_filters"].flatMap { Int($0) } ?? 0
    ownNamespaces = Self.namespaceKinds.filter { kind in
      let theirs = ProcessFiles.link("\(folder)/ns/\(kind)")
      return theirs != nil && theirs != ProcessFiles.link("/proc/self/ns/\(kind)")
    }
    userMap = ProcessFiles.lines("\(folder)/uid_map")
    groupMap = ProcessFiles.lines("\(folder)/gid_map")
    rootEntries = ProcessFiles.readableNames(in: "\(folder)/root").map(\.count)
    mounts = ProcessFiles.lines("\(folder)/mountinfo").compactMap { line in
      let words = line.split(separator: " ")
      return words.count < 6
        ? nil : Mount(point: String(words[4]), options: words[5].split(separator: ","))
    }
    descriptors = ProcessFiles.readableNames(in: "\(folder)/fd").map { numbers in
      numbers.compactMap { Int($0) }.sorted().map {
        Descriptor(number: $0, target: ProcessFiles.link("\(folder)/fd/\($0)") ?? "?")
      }
    }
    threads = ProcessFiles.names(in: "\(folder)/task").compactMap { pid_t($0) }.sorted().map {
      Self.thread($0, of: identifier, first: fields)
    }
    limits = [:]
    for line in ProcessFiles.lines("\(folder)/limits") {
      for limit in Self.shownLimits where line.hasPrefix(limit) {
        limits[limit] =
          line.dropFirst(limit.count).split(separator: " ").first.map(String.init) ?? "?"
      }
    }
    landlockVersion = Self.landlockVersion(of: folder, descriptors ?? [])
  }

  private static func thread(
    _ identifier: pid_t, of process: pid_t, first: [String: String]
  ) -> Thread {
    let own = ProcessFiles.fields("/proc/\(process)/task/\(identifier)/status")
    let rights = capabilitySets + ["NoNewPrivs", "Seccomp", "Seccomp_filters", "Uid", "Gid"]
    return Thread(
      identifier: identifier, name: own["Name"] ?? "?",
      cores: (0..<sysconf(Int32(_SC_NPROCESSORS_CONF))).filter {
        linux_may_run_on_core(identifier, Int32($0)) == 1
      },
      isLikeTheFirst: rights.allSatisfy { own[$0] != nil && own[$0] == first[$0] })
  }

  /// From the counters that it publishes.
  private static func landlockVersion(of folder: String, _ descriptors: [Descriptor]) -> UInt64? {
    for descriptor in descriptors where descriptor.target.hasPrefix("/memfd:martlet-counters") {
      let page = open("\(folder)/fd/\(descriptor.number)", O_RDONLY | O_CLOEXEC)
      if page < 0 { continue }
      let counters = try? CounterPage(adopting: page, capacity: 2, writable: false)
      if let version = counters?.read().first(where: { $0.name == "landlock_version" }) {
        return version.value
      }
    }
    return nil
  }
}
