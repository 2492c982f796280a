import ArgumentParser
import Channel
import Glibc
import Supervisor

/// The socket of a shared run.
struct SharingOption: ParsableArguments {
  @Option(help: ArgumentHelp("The socket of `martlet run --share`.", valueName: "path"))
  var socket: String

  func ask(_ request: String) throws -> [ControlMessage] {
    do {
      return try AdministrationClient(path: socket).ask(request)
    } catch {
      throw CommandFailure.failed(error)
    }
  }
}

/// `martlet stats`: what a shared run has counted.
struct Stats: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what a shared run has counted, and how often packets were copied.",
    discussion: """
      rx_iN_ and tx_iN_ are the counters of the instance in slot N. A packet that comes over queues that instances share \
      is copied once, to whom it is for; over queues of an instance's own it is not. Exit code: 1 when the run cannot be \
      asked.
      """)

  @OptionGroup var sharing: SharingOption
  @Flag(help: "Print a JSON object.") var json = false

  func run() throws {
    try reporting {
      let counters = try sharing.ask("stats").flatMap(\.pairs).compactMap { pair in
        UInt64(pair.value).map { (name: pair.name, value: $0) }
      }
      func sum(_ suffix: String) -> UInt64 {
        counters.filter { $0.name.hasPrefix("rx_i") && $0.name.hasSuffix(suffix) }.reduce(0) {
          $0 &+ $1.value
        }
      }
      let packets = sum("_copied_packets")
      let copies = [
        (name: "rx_copied_packets", value: packets),
        (name: "rx_copied_bytes", value: sum("_copied_bytes")),
      ]
      if !json {
        say(
          "\(packets) packets copied, 1 copy each: the instances share the queues, and a packet is whose it is only once it has come; queues of one's own (`martlet run` without --share) copy none"
        )
      }
      RunConsole.printTotals(copies + counters, json: json)
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
