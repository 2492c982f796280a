import ArgumentParser
import Supervisor

/// Started by `martlet run` where it adds huge pages to the system's pool.
struct KeepHugepages: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "keep-hugepages", shouldDisplay: false)

  func run() { HugepageKeeping.run(control: 3) }
}
