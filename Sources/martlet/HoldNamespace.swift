import ArgumentParser
import Supervisor

/// Started by `martlet run` in a network namespace of its own.
struct HoldNamespace: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hold-namespace", shouldDisplay: false)

  @Option var interface: String

  func run() throws {
    throw ExitCode(NetworkNamespace.hold(interface: interface, control: 3))
  }
}
