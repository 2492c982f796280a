import ArgumentParser
import Glibc
import Supervisor

/// `martlet restart`: another driver host, while connections live on.
struct Restart: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Put another driver host in the place of one that runs.",
    discussion: """
      The device is reset, and a new process goes on with the same memory. Stack instances see a pause; their connections \
      live on. With --host it runs another program from now on, such as a newer one; where that does not start, the one \
      before is started again. Exit code: 1 when the run cannot be asked or refuses.
      """)

  @OptionGroup var asked: SharingOption
  @Option(
    help: ArgumentHelp(
      "The program to run from now on; only for root and for the user who has started the run.",
      valueName: "program"))
  var host: String?

  func run() throws {
    try reporting {
      for message in try asked.ask("restart" + (try program().map { " program=\($0)" } ?? "")) {
        let parts = message.pairs.dropFirst().compactMap { pair in
          UInt64(pair.value).map { "\(pair.name) \($0) us" }
        }
        say(
          "driver host \(message["pid"] ?? "?") goes on: \(parts.joined(separator: ", "))"
        )
      }
    }
  }

  /// In full, as the supervisor may be somewhere else.
  private func program() throws -> String? {
    guard let host else { return nil }
    guard let path = realpath(host, nil) else {
      throw CommandFailure(code: 1, text: "\(host): \(String(cString: strerror(errno)))")
    }
    defer { free(path) }
    let full = String(cString: path)
    guard !full.contains(where: \.isWhitespace) else {
      throw CommandFailure(code: 1, text: "\(full) has spaces in it: put the program elsewhere")
    }
    return full
  }
}
