import Channel
import Glibc
import Memory
import Statistics
import Steering
import Supervisor

/// The rules of a run, asked for and changed over its socket.
struct RunRules {
  private let socket: String

  init(_ sharing: SharingOption) { socket = sharing.socket }

  /// A line of what there is.
  struct Entry {
    /// nil of a protocol.
    var counts: RuleCounts?
    var text: String
    /// Whether the device looks at it too.
    var isWithDevice = false

    var line: String {
      guard let counts else { return text }
      var notes = [
        isWithDevice ? "by the device and the host" : "by the host", "\(counts.packets) packets",
        "\(counts.bytes) bytes",
      ]
      if counts.limited > 0 { notes.append("\(counts.limited) over the limit") }
      if counts.absent > 0 { notes.append("\(counts.absent) for instances that are not there") }
      return "\(text)  # \(notes.joined(separator: ", "))"
    }

    func json(_ counts: RuleCounts) -> String {
      let name = text.split(separator: " ").dropFirst().first ?? ""
      return
        "{\"name\":\"\(name)\",\"applied-by\":\"\(isWithDevice ? "device and host" : "host")\",\"packets\":\(counts.packets),\"bytes\":\(counts.bytes),\"limited\":\(counts.limited),\"absent\":\(counts.absent),\"rule\":\"\(text)\"}"
    }
  }

  /// All rules, and what the device lets through.
  struct List {
    var entries: [Entry]
    var isInForce: Bool
    /// nil where the device does not tell stations apart.
    var filter: StationFilter?

    /// What the device does, as a comment.
    var remark: String {
      guard let filter else { return "# the device lets through what it likes" }
      if filter.takesAll { return "# the device lets through all packets, whatever they are for" }
      let text = { (stations: Set<UInt64>) in
        stations.sorted().map { StationPattern($0).description }.joined(separator: ", ")
      }
      let others = filter.stations.isEmpty ? "" : " and \(text(filter.stations))"
      let groups = filter.takesAllGroups ? "all groups" : "the groups \(text(filter.groups))"
      return
        "# the device lets through packets for its own address\(others), broadcasts and \(groups)"
    }
  }

  func list() throws -> List {
    var text: String?
    let answer = try ask("rules list") { message, descriptors in
      if let descriptor = descriptors.first, let byteCount: Int = message.number("bytes") {
        text = SharedText.read(descriptor, byteCount: byteCount)
      }
    }
    guard let text else { throw CommandFailure(code: 1, text: "the supervisor has sent no list") }
    let filter = answer.lazy.compactMap { StationFilter($0) }.last
    let entries = text.split(separator: "\n").map { line in
      let words = line.split(separator: " ", maxSplits: 4)
      let numbers = words.prefix(4).compactMap { UInt64($0) }
      let text = words.count == 5 ? String(words[4]) : String(line)
      let match = (try? Rule(text))?.match
      return Entry(
        counts: numbers.count == 4
          ? RuleCounts(
            packets: numbers[0], bytes: numbers[1], limited: numbers[2], absent: numbers[3]) : nil,
        text: text, isWithDevice: match.map { filter?.decides($0) ?? false } ?? false)
    }
    return List(
      entries: entries, isInForce: !answer.contains { $0["in-force"] == "no" }, filter: filter)
  }

  /// Changes them, and waits until the driver host goes by it. What may not be meant goes to standard error.
  func change(_ request: String, _ text: String? = nil) throws {
    if let text {
      let shared: SharedText
      do throws(MemoryError) {
        shared = try SharedText(text, name: "martlet-rules")
      } catch {
        throw CommandFailure.failed(error)
      }
      _ = try ask("rules \(request) bytes=\(shared.byteCount)", [shared.descriptor])
    } else {
      _ = try ask("rules \(request)")
    }
    try RuleRemarks.say(of: try set())
  }

  /// All that is set.
  func set() throws -> RuleSet {
    try RuleSet(try list().entries.map(\.text).joined(separator: "\n"))
  }

  private func ask(
    _ request: String, _ descriptors: [Int32] = [],
    take: (ControlMessage, [Int32]) -> Void = { _, _ in }
  ) throws -> [ControlMessage] {
    do {
      return try AdministrationClient(path: socket).ask(request, descriptors, take: take)
    } catch {
      throw CommandFailure.failed(error)
    }
  }
}

/// What of rules is allowed and may not be meant.
enum RuleRemarks {
  /// Each is compared with each, which takes a second: more are left to `martlet rules check`.
  private static let maximumRules = 10_000

  static func say(of rules: RuleSet) throws {
    if rules.rules.count > maximumRules { return }
    for remark in try rules.remarks() { writeLine("martlet rules: \(remark)", to: 2) }
  }
}
