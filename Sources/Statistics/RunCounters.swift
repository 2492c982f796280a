import Channel
import Glibc
import Memory

/// The counters of a run that goes on, read from the memory in which they are counted: who counts is not disturbed, and the
/// supervisor is asked only when it is first met, and when instances have come or gone. One thread.
public final class RunCounters {
  private let path: String
  private var pages: [Page] = []
  /// In the order of the sets of rules.
  private var rules: [RuleReadings] = []
  /// Readable once the supervisor has ended.
  private var supervisor: Int32 = -1
  private var comings: UInt64 = 0
  /// What the run is, as its supervisor says, by name.
  public private(set) var summary: [String: String] = [:]

  /// One page, and whose it is.
  private final class Page {
    let owner: Owner
    let page: CounterPage

    init(owner: Owner, page: consuming CounterPage) {
      self.owner = owner
      self.page = page
    }
  }

  /// Who counts in a page.
  public enum Owner: Equatable, Sendable {
    case supervisor
    case host
    case device
    case instance(Instance)
  }

  /// A stack instance of the run.
  public struct Instance: Equatable, Sendable {
    /// 0 to 63; nil where it is the only one of a run that is not shared.
    public var slot: Int?
    public var id: UInt32
    public var name: String
    public var pid: pid_t

    public init(slot: Int?, id: UInt32, name: String, pid: pid_t) {
      self.slot = slot
      self.id = id
      self.name = name
      self.pid = pid
    }
  }

  /// - Parameter path: the socket of `martlet run --share` or `--control`.
  /// - Throws: where the run cannot be asked or refuses.
  public init(socket path: String) throws(AdministrationError) {
    self.path = path
    try askForPages()
  }

  deinit { if supervisor >= 0 { close(supervisor) } }

  /// Whether the run has ended. What it has counted can be read all the same.
  public var isOver: Bool {
    if supervisor < 0 { return true }
    var entry = pollfd(fd: supervisor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) > 0
  }

  /// The instances that there were when it was last asked.
  public private(set) var instances: [Instance] = []

  /// Asks anew where instances have come or gone, or another run has taken the place of one that has ended.
  public func refresh() throws(AdministrationError) {
    if !isOver && comings == comingsNow { return }
    try askForPages()
  }

  /// All counters by name, in the order supervisor, device, host, instances, rules. A name that an instance of a shared run has
  /// given has its slot before it: `i3_stack_rx_packets`. Those of a rule are `rule_NAME_packets`, `_bytes`, `_limited` and
  /// `_absent`.
  public func read() -> [(name: String, value: UInt64)] {
    var result: [(name: String, value: UInt64)] = []
    for page in pages {
      var prefix = ""
      if case .instance(let instance) = page.owner, let slot = instance.slot {
        prefix = "i\(slot)_"
      }
      for counter in page.page.read() {
        result.append((prefix + counter.name, counter.value))
      }
    }
    return result + RuleReadings.counters(rules)
  }

  /// How long packets stay where, as the driver host has sampled it.
  public func readTimes() -> [TimeSummary] {
    pages.flatMap { $0.page.readHistograms() }.map(TimeSummary.init)
  }

  /// Changes when an instance has come or gone, or rules have changed.
  private var comingsNow: UInt64 {
    pages.first { $0.owner == .supervisor }.map { Self.comings(in: $0.page.read()) } ?? 0
  }

  private static func comings(in counters: [(name: String, value: UInt64)]) -> UInt64 {
    counters.reduce(0) {
      ["instances_attached", "instances_detached", "rules_changes"].contains($1.name)
        ? $0 &+ $1.value : $0
    }
  }

  private func askForPages() throws(AdministrationError) {
    let client = try AdministrationClient(path: path)
    var arrived: [Page] = []
    var arrivedRules: [RuleReadings] = []
    var summary: [String: String] = [:]
    var failure: String?
    _ = try client.ask("counters") { message, descriptors in
      if message.word == "run" {
        for (name, value) in message.pairs { summary[name] = value }
      }
      if message.word == "rules" {
        if let page = RuleReadings(message, descriptors) {
          arrivedRules.append(page)
        } else {
          failure = "rules \(message.rest)"
        }
      }
      guard message.word == "page" else { return }
      guard let owner = Owner(message), let entries: Int = message.number("entries"),
        (1...100_000).contains(entries),
        (0...1000).contains(message.number("histograms") ?? 0), let descriptor = descriptors.first
      else {
        failure = "\(message.word) \(message.rest)"
        return
      }
      do throws(MemoryError) {
        arrived.append(
          Page(
            owner: owner,
            page: try CounterPage(
              adopting: dup(descriptor), capacity: entries,
              histograms: message.number("histograms") ?? 0, writable: false)))
      } catch {
        failure = error.description
      }
    }
    if let failure { throw .malformed(failure) }
    if supervisor >= 0 { close(supervisor) }
    supervisor = client.supervisorProcess()
    pages = arrived
    rules = arrivedRules
    self.summary = summary
    instances = pages.compactMap {
      if case .instance(let instance) = $0.owner { instance } else { nil }
    }
    comings = comingsNow
  }
}

extension RunCounters.Owner {
  /// - Returns: nil where a message names nobody.
  fileprivate init?(_ message: ControlMessage) {
    switch message["of"] {
    case "supervisor": self = .supervisor
    case "host": self = .host
    case "device": self = .device
    case "instance":
      guard let pid: pid_t = message.number("pid") else { return nil }
      self = .instance(
        RunCounters.Instance(
          slot: message.number("slot"), id: message.number("id") ?? 0,
          name: message["name"] ?? "", pid: pid))
    default: return nil
    }
  }
}
