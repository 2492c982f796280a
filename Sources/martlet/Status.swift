import ArgumentParser
import Supervisor

/// `martlet status`: what runs, and what it may do.
struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the driver hosts and stack instances that run, and what each may do.",
    discussion: """
      Everything is read back from the kernel. Exit code: 0 when something runs and every driver host is confined, 1 \
      when nothing runs, 3 when a driver host is not confined.
      """)

  @Flag(help: "Print a JSON array.") var json = false

  func run() throws {
    let all = ProcessRights.ofRuns()
    if json {
      say("[" + all.map(describeAsJSON).joined(separator: ", ") + "]")
    } else {
      for process in all { describe(process) }
    }
    if all.isEmpty {
      if !json { writeLine("martlet status: nothing runs; start it with `martlet run`", to: 2) }
      throw ExitCode(1)
    }
    if all.contains(where: { $0.name == "martlet-host" && !$0.isConfined }) { throw ExitCode(3) }
  }

  private func describe(_ process: ProcessRights) {
    let state =
      process.name == "martlet-host"
      ? (process.isConfined ? "confined" : "NOT CONFINED") : "an ordinary process"
    say("\(process.name) \(process.identifier), started by \(process.parent): \(state)")
    say("  user \(process.user), no new privileges: \(process.noNewPrivileges ? "yes" : "no")")
    let sets = ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"]
    say(
      "  capabilities: "
        + sets.map { "\($0) \(process.capabilities[$0] ?? "?")" }.joined(separator: ", "))
    let modes = ["none", "strict", "filter"]
    let mode = modes.indices.contains(process.seccompMode) ? modes[process.seccompMode] : "unknown"
    say("  system calls: \(mode), filters: \(process.seccompFilters)")
    for thread in process.threads {
      let cores = thread.cores.map(String.init).joined(separator: ",")
      say(
        "  thread \(thread.identifier) (\(thread.name)) on core \(cores): "
          + (thread.isLikeTheFirst ? "the same rights" : "OTHER RIGHTS"))
    }
    let namespaces = process.ownNamespaces.joined(separator: " ")
    say("  namespaces of its own: \(namespaces.isEmpty ? "none" : namespaces)")
    say(
      "  entries in its root: \(process.rootEntries.map(String.init) ?? "the kernel does not let this user look")"
    )
    let limits = process.limits.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
    say("  limits: " + limits.joined(separator: ", "))
    for descriptor in process.descriptors ?? [] { say("  descriptor \(descriptor)") }
  }

  private func describeAsJSON(_ process: ProcessRights) -> String {
    let fields = [
      "\"name\": \(quoted(process.name))", "\"pid\": \(process.identifier)",
      "\"user\": \(quoted(process.user))", "\"confined\": \(process.isConfined)",
      "\"noNewPrivileges\": \(process.noNewPrivileges)", "\"seccomp\": \(process.seccompMode)",
      "\"capabilities\": {"
        + process.capabilities.sorted { $0.key < $1.key }.map {
          "\(quoted($0.key)): \(quoted($0.value))"
        }.joined(separator: ", ") + "}",
      "\"namespaces\": [" + process.ownNamespaces.map(quoted).joined(separator: ", ") + "]",
      "\"threads\": ["
        + process.threads.map {
          "{\"tid\": \($0.identifier), \"name\": \(quoted($0.name)), \"cores\": \($0.cores), "
            + "\"sameRights\": \($0.isLikeTheFirst)}"
        }.joined(separator: ", ") + "]",
      "\"rootEntries\": \(process.rootEntries.map(String.init) ?? "null")",
      "\"descriptors\": ["
        + (process.descriptors ?? []).map(quoted).joined(separator: ", ") + "]",
    ]
    return "{" + fields.joined(separator: ", ") + "}"
  }

  private func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\": result += "\\\(scalar)"
      case _ where scalar.value < 32: result += "?"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
