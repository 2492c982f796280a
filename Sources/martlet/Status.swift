import ArgumentParser
import Supervisor

/// `martlet status`: what runs, and what it may do.
struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show the driver hosts, stages and stack instances that run, and what each may do.",
    discussion: """
      Everything is read back from the kernel. What a driver host or a stage has and should not have is marked WEAKER THAN \
      WISHED. Exit code: 0 when something runs and each of these is confined, 1 when nothing runs, 3 when one is not.
      """)

  @Flag(help: "Print a JSON array.") var json = false
  @Option(
    help: ArgumentHelp("Only what this supervisor has started.", valueName: "process id"))
  var of: Int32?

  func run() throws {
    let all = ProcessRights.ofRuns().filter { of == nil || $0.parent == of }
    let supervisors = ProcessRights.supervisors(of: all)
    if json {
      say("[" + (supervisors + all).map(describeAsJSON).joined(separator: ", ") + "]")
    } else {
      for process in supervisors + all { describe(process) }
    }
    if all.isEmpty {
      if !json { writeLine("martlet status: nothing runs; start it with `martlet run`", to: 2) }
      throw ExitCode(1)
    }
    if all.contains(where: { $0.isToBeConfined && !$0.isConfined }) { throw ExitCode(3) }
  }

  private func describe(_ process: ProcessRights) {
    let isHost = process.isDriverHost
    let state =
      process.isToBeConfined
      ? (process.isConfined ? "confined" : "NOT CONFINED")
        + (process.isStandingBy ? " for the start of a device, which it has not: it stands by" : "")
      : process.name == "martlet" ? "a supervisor" : "an ordinary process"
    say("\(process.name) \(process.identifier), started by \(process.parent): \(state)")
    if process.isToBeConfined {
      for weakness in process.weaknesses { say("  WEAKER THAN WISHED: \(weakness)") }
      for shortcoming in process.shortcomings { say("  not here: \(shortcoming)") }
    }
    let groups = process.groups.isEmpty ? "none" : process.groups.joined(separator: " ")
    say("  user \(process.user), further groups: \(groups)")
    say(
      "  users and groups, and whose they are outside: \(maps(process.userMap)), \(maps(process.groupMap))"
    )
    let sets = ProcessRights.capabilitySets.map { "\($0) \(process.capabilities[$0] ?? "?")" }
    say("  capabilities: " + sets.joined(separator: ", "))
    say("  no new privileges: \(process.noNewPrivileges ? "yes" : "no")")
    let modes = ["none", "strict", "filter"]
    let mode = modes.indices.contains(process.seccompMode) ? modes[process.seccompMode] : "unknown"
    say(
      "  system calls: \(mode), filters: \(process.seccompFilters), \(process.inheritedFilters) of them from its parent"
    )
    if isHost {
      let version = process.landlockVersion.map { "version \($0)" } ?? "not to be seen"
      say("  Landlock, as the host says: \(version)")
    }
    for thread in process.threads {
      let cores = thread.cores.map(String.init).joined(separator: ",")
      say(
        "  thread \(thread.identifier) (\(thread.name)) on core \(cores): "
          + (thread.isLikeTheFirst ? "the same rights" : "OTHER RIGHTS"))
    }
    let namespaces = process.ownNamespaces.joined(separator: " ")
    say("  namespaces of its own: \(namespaces.isEmpty ? "none" : namespaces)")
    say(
      "  entries in its root: \(process.rootEntries.map(String.init) ?? "the kernel does not let this user look"); mounts: \(process.mounts.count)"
    )
    let limits = process.limits.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
    say("  limits: " + limits.joined(separator: ", "))
    for (kind, numbers) in process.descriptorsByKind {
      say("  descriptors: \(kind) \(numbers.map(String.init).joined(separator: ","))")
    }
  }

  private func maps(_ lines: [String]) -> String {
    lines.isEmpty ? "not to be seen" : lines.joined(separator: "; ")
  }

  private func describeAsJSON(_ process: ProcessRights) -> String {
    let isJudged = process.isToBeConfined
    let fields = [
      "\"name\": \(quoted(process.name))", "\"pid\": \(process.identifier)",
      "\"user\": \(quoted(process.user))", "\"confined\": \(isJudged && process.isConfined)",
      "\"weaknesses\": \(array(isJudged ? process.weaknesses : []))",
      "\"shortcomings\": \(array(isJudged ? process.shortcomings : []))",
      "\"noNewPrivileges\": \(process.noNewPrivileges)", "\"seccomp\": \(process.seccompMode)",
      "\"filters\": \(process.seccompFilters)",
      "\"landlock\": \(process.landlockVersion.map { "\($0)" } ?? "null")",
      "\"capabilities\": \(object(process.capabilities))",
      "\"limits\": \(object(process.limits))",
      "\"namespaces\": \(array(process.ownNamespaces))",
      "\"groups\": \(array(process.groups))",
      "\"uidMap\": \(array(process.userMap))", "\"gidMap\": \(array(process.groupMap))",
      "\"threads\": ["
        + process.threads.map {
          "{\"tid\": \($0.identifier), \"name\": \(quoted($0.name)), \"cores\": \($0.cores), "
            + "\"sameRights\": \($0.isLikeTheFirst)}"
        }.joined(separator: ", ") + "]",
      "\"rootEntries\": \(process.rootEntries.map(String.init) ?? "null")",
      "\"mounts\": \(process.mounts.count)",
      "\"descriptors\": "
        + array((process.descriptors ?? []).map { "\($0.number) \($0.target)" }),
    ]
    return "{" + fields.joined(separator: ", ") + "}"
  }

  private func array(_ texts: [String]) -> String {
    "[" + texts.map(quoted).joined(separator: ", ") + "]"
  }

  private func object(_ fields: [String: String]) -> String {
    "{"
      + fields.sorted { $0.key < $1.key }.map { "\(quoted($0.key)): \(quoted($0.value))" }
      .joined(separator: ", ") + "}"
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
