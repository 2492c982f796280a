import Channel
import Glibc
import Memory

/// The stages of a shared run: starts their processes, watches them, and tells the driver host of them. One that ends or hangs
/// is started anew; what it had of packets is the host's again first. One thread; nothing here waits.
final class StageService {
  private let plan: RunPlan
  private let interface: InterfaceDescription
  private let path: any InstancePath
  private let arena: (descriptor: Int32, byteCount: Int)
  private let report: (String) -> Void
  private var stages: [Stage]
  private var isEnding = false

  /// A stage, whether or not its process runs.
  private struct Stage {
    let rule: StageRule
    var state = State.down
    var process: StageProcess?
    /// When the next process is started, or this one has to have said that it is ready, in milliseconds.
    var due: UInt64
    var startedAt: UInt64 = 0
    var backOff = RestartBackOff(limit: .max)
    var restarts: UInt64 = 0
    var hangs: UInt64 = 0
  }

  enum State: String {
    case down
    /// Its process has not said yet that it is ready.
    case starting
    case running
    /// The driver host has been told to let go of it.
    case leaving
  }

  /// Milliseconds from a process's start to its first word.
  private static let readyLimit: UInt64 = 5000
  /// Milliseconds between two looks whether one hangs.
  private static let watchInterval: UInt64 = 20

  init(
    _ rules: [StageRule], _ plan: RunPlan, _ interface: InterfaceDescription,
    path: any InstancePath, arena: (descriptor: Int32, byteCount: Int),
    report: @escaping (String) -> Void, at now: UInt64
  ) throws(SupervisorError) {
    self.plan = plan
    self.interface = interface
    self.path = path
    self.arena = arena
    self.report = report
    stages = rules.map { Stage(rule: $0, due: now) }
    tellOfAll()
    // What is wrong with a program or a configuration is said at once, and nothing runs then.
    for place in stages.indices { try start(place, at: now) }
    try awaitFirst(until: now + Self.readyLimit)
  }

  /// Of one run's first stages nothing is left out.
  private func awaitFirst(until end: UInt64) throws(SupervisorError) {
    while stages.contains(where: { $0.state == .starting }) {
      let now = RunSession.now()
      if now >= end { throw .timedOut(process: "a stage", waitingFor: "that it is ready") }
      var entries = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
      _ = poll(&entries, UInt(entries.count), 20)
      for place in stages.indices where stages[place].state == .starting {
        guard let process = stages[place].process else { continue }
        for message in try process.news(of: stages[place].rule.name) { hear(place, message) }
        if process.isOver, stages[place].state == .starting {
          throw .ended(process: "stage \(stages[place].rule.name)", how: process.kill())
        }
      }
    }
  }

  /// What to watch: when one becomes readable, ``step(at:)`` is due.
  var descriptors: [Int32] { stages.flatMap { $0.process?.descriptors ?? [] } }

  /// When it is due at the latest.
  var due: UInt64 {
    stages.map { stage in
      switch stage.state {
      case .down, .starting: stage.due
      case .running: RunSession.now() + Self.watchInterval
      case .leaving: .max
      }
    }.min() ?? .max
  }

  /// How many packets stages have had, and how often they were started anew.
  var counters: [(name: String, value: UInt64)] {
    stages.flatMap { stage in
      [
        (name: "stage_\(stage.rule.name)_process", value: UInt64(stage.process?.identifier ?? 0)),
        (name: "stage_\(stage.rule.name)_restarts", value: stage.restarts),
        (name: "stage_\(stage.rule.name)_hangs", value: stage.hangs),
      ]
        + (stage.process?.counters.read() ?? []).map {
          (name: "stage_\(stage.rule.name)_\($0.name)", value: $0.value)
        }
    }
  }

  /// For administrators: a line for each.
  var descriptions: [String] {
    stages.enumerated().map { place, stage in
      "stage place=\(place) name=\(stage.rule.name) kind=\(stage.rule.kind)"
        + " state=\(stage.state.rawValue) pid=\(stage.process?.identifier ?? 0)"
        + " packets=\(stage.rule.takesAll ? "all" : "rules") receive=\(stage.rule.receives ? "yes" : "no")"
        + " transmit=\(stage.rule.transmits ? "yes" : "no")"
        + " fails=\(stage.rule.failsClosed ? "closed" : "open") restarts=\(stage.restarts) hangs=\(stage.hangs)"
    }
  }

  // MARK: Processes

  private func start(_ place: Int, at now: UInt64) throws(SupervisorError) {
    stages[place].process = try StageProcess(
      stages[place].rule, plan, interface, arena: arena, at: now)
    stages[place].state = .starting
    stages[place].startedAt = now
    stages[place].due = now + Self.readyLimit
  }

  /// Does all that is due.
  func step(at now: UInt64) {
    for place in stages.indices { step(place, at: now) }
  }

  private func step(_ place: Int, at now: UInt64) {
    let name = stages[place].rule.name
    switch stages[place].state {
    case .down:
      guard !isEnding, now >= stages[place].due else { return }
      do throws(SupervisorError) {
        try start(place, at: now)
        stages[place].restarts += 1
      } catch {
        report("stage \(name) does not start: \(error)")
        postpone(place, at: now)
      }
    case .starting, .running:
      guard let process = stages[place].process else { return }
      do throws(SupervisorError) {
        for message in try process.news(of: name) { hear(place, message) }
      } catch {
        return lose(place, "\(error)", at: now)
      }
      if process.isOver {
        lose(place, "it \(process.kill())", at: now)
      } else if stages[place].state == .starting, now >= stages[place].due {
        lose(place, "it was not ready in time", at: now)
      } else if stages[place].state == .running,
        process.hangs(longerThan: stages[place].rule.hangMilliseconds, at: now)
      {
        stages[place].hangs += 1
        lose(
          place, "it has taken no packet for \(stages[place].rule.hangMilliseconds) ms", at: now)
      }
    case .leaving: break
    }
  }

  private func hear(_ place: Int, _ message: ControlMessage) {
    let stage = stages[place]
    switch message.word {
    case "ready" where stage.state == .starting:
      guard let process = stage.process else { return }
      stages[place].state = .running
      path.tell(text(place) + " slots=\(StageRule.slots)", process.channelDescriptors)
      if stage.restarts > 0 {
        report("stage \(stage.rule.name) goes on: process \(process.identifier)")
      }
    default: report("stage \(stage.rule.name): \(message.word) \(message.rest)")
    }
  }

  /// A stage's process is of no use any more. It has ended before the driver host uses again what it had.
  private func lose(_ place: Int, _ reason: String, at now: UInt64) {
    let stage = stages[place]
    _ = stage.process?.kill()
    stages[place].process = nil
    if !isEnding {
      report(
        "stage \(stage.rule.name) is started anew, packets are \(stage.rule.failsClosed ? "dropped" : "passed by") meanwhile: \(reason)"
      )
    }
    if stage.state == .running {
      stages[place].state = .leaving
      path.tell("stage-end place=\(place)", [])
    } else {
      stages[place].state = .down
    }
    postpone(place, at: now)
  }

  private func postpone(_ place: Int, at now: UInt64) {
    let delay = stages[place].backOff.next(at: now, lived: now - min(now, stages[place].startedAt))
    stages[place].due = now + (delay ?? 1000)
  }

  // MARK: The driver host

  private func text(_ place: Int) -> String {
    let rule = stages[place].rule
    func all(_ isOn: Bool) -> String { rule.takesAll && isOn ? "all" : "rules" }
    return "stage place=\(place) name=\(rule.name) receive=\(all(rule.receives))"
      + " transmit=\(all(rule.transmits)) fails=\(rule.failsClosed ? "closed" : "open")"
  }

  /// The host knows of all of them before packets come to any instance: none passes one by that is only not there yet.
  private func tellOfAll() {
    for place in stages.indices { path.tell(text(place), []) }
  }

  /// - Returns: whether the driver host's message was about a stage.
  func hear(host message: ControlMessage, at now: UInt64) -> Bool {
    let isRefusal =
      message.word == "refused" && ["stage", "stage-end"].contains(message["what"] ?? "")
    guard isRefusal || ["staged", "unstaged", "stage-closed"].contains(message.word),
      let place: Int = message.number("place"), stages.indices.contains(place)
    else { return false }
    switch message.word {
    case "unstaged":
      if stages[place].state == .leaving { stages[place].state = .down }
    case "stage-closed":
      guard stages[place].state == .running else { break }
      lose(place, "it has broken the channel's rules: \(message["reason"] ?? "?")", at: now)
    case "refused":
      report(
        "the driver host refuses stage \(stages[place].rule.name): \(message["reason"] ?? "no reason")"
      )
      if message["what"] == "stage-end" {
        stages[place].state = .down
      } else if stages[place].state == .running {
        _ = stages[place].process?.kill()
        stages[place].process = nil
        stages[place].state = .down
        postpone(place, at: now)
      }
    default: break
    }
    return true
  }

  /// There is no driver host: stages end before the device gets the memory that they had.
  func noteHostGone(at now: UInt64) {
    for place in stages.indices {
      _ = stages[place].process?.kill()
      stages[place].process = nil
      stages[place].state = .down
      stages[place].due = now
    }
  }

  /// Another driver host is in place.
  func restore() { tellOfAll() }

  // MARK: The end

  /// Asks all to give back what they have and to end.
  func close() {
    isEnding = true
    for stage in stages where stage.state == .running { stage.process?.askToEnd() }
  }

  /// Whether the driver host has let go of all of them.
  var areDown: Bool { stages.allSatisfy { $0.state == .down } }

  /// Ends those that have not ended by themselves.
  func endAll(at now: UInt64) {
    for place in stages.indices where stages[place].process != nil {
      lose(place, "the run ends", at: now)
    }
  }
}
