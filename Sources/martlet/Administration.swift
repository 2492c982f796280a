import ArgumentParser
import Channel
import Glibc
import Statistics

/// The socket of a run.
struct SharingOption: ParsableArguments {
  @Option(
    help: ArgumentHelp("The socket of `martlet run --share` or `--control`.", valueName: "path"))
  var socket: String

  func ask(_ request: String) throws -> [ControlMessage] {
    do {
      return try AdministrationClient(path: socket).ask(request)
    } catch {
      throw CommandFailure.failed(error)
    }
  }

  /// The pages that its counters are in.
  func counters() throws -> RunCounters {
    do {
      return try RunCounters(socket: socket)
    } catch {
      throw CommandFailure.failed(error)
    }
  }
}

/// `martlet memory`: who holds what.
struct MemoryCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "memory", abstract: "Show who holds what memory of a shared run.",
    discussion: """
      Each instance with its extents: what it has now, always and at most, in which pages, and whose its receive segments \
      are. Then what all instances have of the budget, and how often the kernel said that memory is short.
      """)

  @OptionGroup var sharing: SharingOption
  @Flag(help: "Again each second, until Ctrl-C.") var watch = false

  func run() throws {
    try reporting {
      repeat {
        for message in try sharing.ask("memory") { show(message) }
        if watch { sleep(1) }
      } while watch
    }
  }

  private func show(_ message: ControlMessage) {
    func value(_ name: String) -> String { message[name] ?? "?" }
    func size(_ name: String) -> String {
      (message.number(name) as UInt64?).map { "\($0 >> 20) MiB" } ?? "?"
    }
    switch message.word {
    case "instance":
      say(
        "instance \(value("id")) (\(value("name")), process \(value("pid"))) \(value("state")): \(size("now")) now, \(size("guaranteed")) always, \(size("maximum")) at most, \(size("registered")) registered\(message["moving"] == "yes" ? ", being changed" : ""); idle for \(value("idle-milliseconds")) ms; receive segments: \(value("segments-instance")) its own, \(value("segments-sending")) being sent, \(value("segments-host")) free"
      )
    case "extent":
      say("  \(size("bytes")) of \(value("pages")) pages from \(size("offset")) on")
    case "budget":
      let budget: UInt64 = message.number("bytes") ?? 0
      say(
        "all instances: \(size("used")) of \(budget == 0 ? "what the system has" : size("bytes"))"
          + "; memory was short \(value("pressure-events")) times"
          + (message["trigger"] == "yes"
            ? " (\(value("place")))"
            : " (the kernel does not say: \(value("place").replacing("_", with: " ")))")
      )
    case "host":
      say(
        "driver host: \(size("bytes")); receive segments: \(value("segments-device")) the device's, \(value("segments-host")) its own; window of \(size("window")), \(size("reserved")) given out"
      )
    default: say("\(message.word) \(message.rest)")
    }
  }
}

/// `martlet close`: ends an instance.
struct Close: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Close an instance of a shared run.")

  @OptionGroup var sharing: SharingOption
  @Argument(help: "As `martlet memory` shows it.") var id: UInt32

  func run() throws { try reporting { _ = try sharing.ask("close id=\(id)") } }
}

/// `martlet revoke`: takes an instance's credential.
struct Revoke: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Refuse an instance's commands from now on; its packets go on.")

  @OptionGroup var sharing: SharingOption
  @Argument(help: "As `martlet memory` shows it.") var id: UInt32

  func run() throws { try reporting { _ = try sharing.ask("revoke id=\(id)") } }
}
