/// One counter of a run as monitoring systems name it: a family of counters that mean the same, labels that tell them
/// apart, and whether it only grows.
///
/// Counters are named by DPDK's xstats grammar, in which queue and instance are words of the name: `rx_q0_packets`.
public struct Metric: Hashable, Sendable {
  /// Without the unit of what only grows: `rx_packets` for every queue, `instance_rx_packets` for every instance.
  public var family: String
  /// Such as `queue`, `instance`, `reason`, in this order.
  public var labels: [Label]
  public var kind: Kind

  /// A label and its value.
  public struct Label: Hashable, Sendable {
    public var name: String
    public var value: String

    public init(_ name: String, _ value: String) {
      self.name = name
      self.value = value
    }
  }

  public enum Kind: Sendable {
    /// It only grows while the run lasts.
    case counter
    /// It goes up and down.
    case gauge
  }

  public init(family: String, labels: [Label], kind: Kind) {
    self.family = family
    self.labels = labels
    self.kind = kind
  }

  /// - Parameters:
  ///   - counter: its name in a counter page.
  ///   - instanceNames: by slot.
  /// - Returns: nil where it is the sum of others.
  public init?(counter: String, instanceNames: [Int: String] = [:]) {
    if counter == "host_restarts" { return nil }
    if let (rule, what) = Self.rule(counter) {
      family = "rule_\(what)"
      labels = [Label("rule", rule)]
      kind = .counter
      return
    }
    var words = counter.split(separator: "_").map(String.init)
    var labels: [Label] = []
    var scope = ""
    if words.count > 2, words[0] == "capture", let slot = Int(words[1]) {
      labels.append(Label("capture", "\(slot)"))
      words.remove(at: 1)
    } else if let at = words.firstIndex(where: { Self.number($0, after: "q") != nil }) {
      labels.append(Label("queue", String(words[at].dropFirst())))
      words.remove(at: at)
    } else if let at = words.firstIndex(where: { Self.number($0, after: "i") != nil }),
      let slot = Self.number(words[at], after: "i")
    {
      labels.append(Label("instance", "\(slot)"))
      labels.append(Label("name", instanceNames[slot] ?? ""))
      words.remove(at: at)
      scope = "instance_"
    }
    var name = words.joined(separator: "_")
    for split in Self.splits where name.hasPrefix(split.prefix) && name.count > split.prefix.count {
      labels.append(Label(split.label, String(name.dropFirst(split.keeps.count + 1))))
      name = split.keeps
      break
    }
    if name == "tx_refused_source" {
      labels.append(Label("reason", "refused_source"))
      name = "tx_dropped"
    }
    family = scope + name
    self.labels = labels
    kind = Self.isGauge(name) ? .gauge : .counter
  }

  /// - Returns: nil where it is no rule's counter. A rule's name may have any of these words in it.
  private static func rule(_ counter: String) -> (name: String, what: String)? {
    let prefix = "rule_"
    guard counter.hasPrefix(prefix), let last = counter.lastIndex(of: "_") else { return nil }
    let what = String(counter[counter.index(after: last)...])
    let start = counter.index(counter.startIndex, offsetBy: prefix.count)
    guard start < last, helps["rule_\(what)"] != nil else { return nil }
    return (String(counter[start..<last]), what)
  }

  private static func number(_ word: String, after letter: Character) -> Int? {
    guard word.first == letter, word.count > 1, word.dropFirst().allSatisfy(\.isNumber) else {
      return nil
    }
    return Int(word.dropFirst())
  }

  /// What a name has behind a word that is a label's value.
  private static let splits: [(prefix: String, keeps: String, label: String)] = [
    ("rx_dropped_", "rx_dropped", "reason"), ("tx_dropped_", "tx_dropped", "reason"),
    ("refused_", "refused", "reason"), ("offences_", "offences", "reason"),
    ("host_restarts_", "host_restarts", "reason"),
    ("handles_refused_", "handles_refused", "reason"),
    ("commands_", "commands", "status"), ("rx_segments_", "rx_segments", "owner"),
    ("ring_level_", "ring_level", "ring"), ("ring_peak_", "ring_peak", "ring"),
    ("host_restart_", "host_restart", "step"),
  ]

  private static let gauges: Set<String> = [
    "rx_segments", "ring_level", "ring_peak", "host_restart", "host_process", "device_process",
    "supervisor_process", "process", "captures",
    "landlock_version", "instances", "connections", "handles_handles", "handles_connections",
    "memory_used_bytes", "memory_budget_bytes", "memory_host_bytes", "memory_bytes",
    "stack_segment_references", "stack_copies_per_byte",
  ]

  private static func isGauge(_ name: String) -> Bool {
    gauges.contains(name) || name.hasSuffix("_ns")
  }

  /// What the family counts, in a sentence.
  public var help: String {
    let isOfInstance = family.hasPrefix("instance_")
    let name = isOfInstance ? String(family.dropFirst("instance_".count)) : family
    guard let text = Self.helps[name] else { return "As who counts it names it." }
    return text + (isOfInstance ? ", by instance." : ".")
  }

  private static let helps: [String: String] = [
    "rx_packets": "Packets received", "rx_bytes": "Bytes of packets received",
    "rx_errors": "Packets received with an error of the device or the driver",
    "rx_dropped": "Packets received and dropped, by reason",
    "tx_packets": "Packets handed to the device and sent", "tx_bytes": "Bytes of packets sent",
    "tx_errors": "Packets that could not be sent",
    "tx_dropped": "Packets that an instance wanted sent and that were dropped, by reason",
    "doorbells": "Times that the driver rang the device",
    "sleeps": "Times that a queue thread slept",
    "interrupts": "Times that the device woke a queue thread",
    "rx_segments": "Receive segments by who has them now",
    "ring_level": "Slots in use of each ring, seen now and then",
    "ring_peak": "The most slots in use of each ring that were ever seen",
    "rx_copied_packets": "Packets copied on their way to an instance",
    "rx_copied_bytes": "Bytes copied on their way to an instance",
    "tx_header_bytes_copied": "Header bytes copied of packets sent",
    "tx_sent_in_place": "Packets sent from where they were received",
    "out_of_time": "Times that an instance had used its share of the host's time",
    "rx_tagged_packets": "Packets received with a VLAN tag",
    "instances_closed": "Instances closed by the driver host",
    "device_reconnects": "Times that a device came back",
    "landlock_version": "Version of Landlock that confines the driver host",
    "host_process": "Process id of the driver host",
    "host_restarts": "Driver hosts that took the place of another, by reason",
    "host_restart":
      "When each step of the last restart was done, in nanoseconds of the monotonic clock",
    "iommu_faults": "Times that the IOMMU stopped the device",
    "instances": "Instances that there are", "connections": "Connections to the run's socket",
    "refused": "Requests refused, by what was wrong", "offences": "Peers closed, by what they did",
    "commands": "Commands of instances, by how they ended",
    "handles_refused": "Requests to the broker of handles refused, by reason",
    "memory_used_bytes": "Memory that instances have",
    "memory_budget_bytes": "Memory that instances may have; 0 for no bound",
    "memory_host_bytes": "Memory of the driver host", "memory_bytes": "Memory in use",
    "process": "Process id",
    "rules_changes": "Times that the driver host was told of other rules",
    "rule_packets": "Packets that a rule matched",
    "rule_bytes": "Bytes of packets that a rule matched",
    "rule_limited": "Packets that a rule matched and dropped for its limit",
    "rule_absent": "Packets that a rule matched for instances that are not there",
    "captures": "Captures that go on",
    "capture_seen": "Packets that a capture has looked at",
    "capture_matched": "Packets that a capture's filter took",
    "capture_written": "Packets that a capture was given",
    "capture_lost": "Packets that a capture lost because its buffer was full",
  ]
}
