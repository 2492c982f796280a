import Glibc
import Logging
import Steering
import Supervisor

/// What `martlet run --share` shows.
struct SharedConsole {
  private let plan: RunPlan
  private let seconds: UInt64?
  private let json: Bool
  private let log = Logger(label: "martlet") { StreamLogHandler.standardError(label: $0) }

  init(_ plan: RunPlan, seconds: UInt64?, json: Bool) {
    self.plan = plan
    self.seconds = seconds
    self.json = json
  }

  func run(socket: String, policy: Policy, rules: RuleSet?) throws {
    var session = try SharedSession.start(
      plan, socket: socket, policy: policy, rules: rules, report: { [log] in log.info("\($0)") })
    picture(session, socket)
    if let rules { try RuleRemarks.say(of: rules) }
    do {
      try session.serve(milliseconds: seconds.map { $0 * 1000 } ?? .max)
    } catch {
      // The reason is known; how the others end beside it is not news.
      _ = session.stop()
      throw error
    }
    let complaints = session.stop()
    RunConsole.printTotals(session.counters, json: json)
    if !complaints.isEmpty {
      throw SupervisorError.checkFailed(complaints.joined(separator: "; "))
    }
  }

  private func picture(_ session: borrowing SharedSession, _ socket: String) {
    let interface = session.interface
    if let namespace = session.namespace {
      say(
        "  kernel's TCP/IP, \(plan.address.neighbour): \(namespace.prefix.joined(separator: " "))")
    }
    say(
      "  driver host \(session.hostIdentifier)  (confined; \(interface.macAddress), MTU \(interface.mtu), queue pairs \(interface.queues))"
    )
    if let namespace = session.stackNamespace {
      say("  kernel stack, \(plan.address): \(namespace.prefix.joined(separator: " "))")
    }
    say("  instances attach at \(socket); one copy for each packet received")
    say("running until Ctrl-C")
  }
}
