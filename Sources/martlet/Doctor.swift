import ArgumentParser
import Foundation
import PCIDiscovery

/// `martlet doctor`: whether this machine is ready, and what to do where it is not.
struct Doctor: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check whether this machine can run a driver in user space.",
    discussion: """
      Without an address it looks at every function that Martlet has a driver for. A line that fails says why it \
      matters and which command mends it. Warnings do not fail.

      \(CommandFailure.exitCodes)
      """)

  @Argument(help: "0000:04:00.1, 04:00.1 or the name of a network interface.")
  var address: String?

  @Flag(help: "Print the checks as JSON.") var json = false

  private struct Line: Encodable {
    var name: String
    var state: String
    var finding: String
    var reason: String?
    var remedy: String?
  }

  func run() throws {
    try reporting {
      var functions: [DiscoveredFunction]
      if let address {
        functions = [try find(address)]
      } else {
        // Those that the kernel is using stay its own: their lines would only distract.
        let bus = PCIBus()
        functions = bus.functions().filter { KnownDriver.driver(for: $0) != nil }
        let free = functions.filter { $0.isBoundToVFIO || bus.uses(of: $0).isEmpty }
        if !free.isEmpty { functions = free }
      }
      var checks = Readiness().checks(of: functions)
      if functions.isEmpty {
        checks.append(
          ReadinessCheck(
            name: "devices", state: .warning, finding: "none that Martlet has a driver for",
            reason: "there is nothing to run on but the emulated device",
            remedy: "martlet run --device emulated"))
      }
      for function in functions where KnownDriver.driver(for: function) == nil {
        checks.append(
          ReadinessCheck(
            name: "\(function.address) device", state: .failed,
            finding: "Martlet has no driver for \(identity(function))",
            reason: "a function needs one", remedy: "martlet devices"))
      }
      try show(checks)
      if checks.contains(where: { $0.state == .failed }) { throw ExitCode(1) }
    }
  }

  private func show(_ checks: [ReadinessCheck]) throws {
    if json {
      return try printJSON(
        checks.map {
          Line(
            name: $0.name, state: $0.state.rawValue, finding: $0.finding, reason: $0.reason,
            remedy: $0.remedy)
        })
    }
    let marks: [ReadinessCheck.State: String] = [.ok: "ok  ", .warning: "WARN", .failed: "FAIL"]
    let width = checks.map(\.name.count).max() ?? 0
    for check in checks {
      let name = check.name.padding(toLength: width, withPad: " ", startingAt: 0)
      print("\(marks[check.state] ?? "")  \(name)  \(check.finding)")
      if let reason = check.reason { print("      why: \(reason)") }
      if let remedy = check.remedy { print("      mend: \(remedy)") }
    }
    let bad = checks.filter { $0.state == .failed }.count
    let warnings = checks.filter { $0.state == .warning }.count
    print("\(checks.count) checks, \(bad) failed, \(warnings) warnings")
  }
}

/// Prints a table for programs.
func printJSON(_ value: some Encodable) throws {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  print(String(decoding: try encoder.encode(value), as: UTF8.self))
}
