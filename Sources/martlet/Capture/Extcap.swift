import ArgumentParser
import Capture
import Glibc
import Supervisor

/// `martlet extcap`: what Wireshark starts to show a run's packets as they come (wireshark's extcap(4)).
struct Extcap: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Capture for Wireshark, which calls this by itself.",
    discussion: """
      Put a script into Wireshark's folder for extcap programs (Help, About, Folders: Personal Extcap path):
        #!/bin/sh
        exec martlet extcap "$@"
      Then Wireshark and tshark have an interface `martlet`, which asks for the socket of a run.
      """)

  @Flag(help: "List the interfaces.") var extcapInterfaces = false
  @Option(help: "Which one is meant.") var extcapInterface: String?
  @Flag(help: "List its link types.") var extcapDlts = false
  @Flag(help: "List what it asks for.") var extcapConfig = false
  @Option(help: "Which version of Wireshark asks.") var extcapVersion: String?
  @Option(help: "A filter as tcpdump takes it.") var extcapCaptureFilter: String?
  @Flag(help: "Capture.") var capture = false
  @Option(help: "Where Wireshark reads.") var fifo: String?
  @Option(help: "The socket of a run.") var socket: String?
  @Option(help: "Where to capture.") var points = "wire-rx,wire-tx"

  static let interface = "martlet"

  func run() throws {
    try reporting {
      if extcapInterfaces {
        say("extcap {version=1.0}{help=https://www.wireshark.org/docs/man-pages/extcap.html}")
        say("interface {value=\(Self.interface)}{display=Martlet NIC}")
        return
      }
      guard extcapInterface == nil || extcapInterface == Self.interface else {
        throw CommandFailure(
          code: 2, text: "there is no interface \(extcapInterface ?? ""): there is martlet")
      }
      if extcapDlts {
        say("dlt {number=1}{name=EN10MB}{display=Ethernet}")
      } else if extcapConfig {
        sayConfiguration()
      } else if capture {
        try captureForWireshark()
      } else if let extcapCaptureFilter {
        // Wireshark shows what is printed, and takes nothing for a good filter.
        do {
          _ = try FilterCompiler.compile(extcapCaptureFilter)
        } catch let failure as CommandFailure {
          say(failure.text)
        }
      }
    }
  }

  private func sayConfiguration() {
    say(
      "arg {number=0}{call=--socket}{display=Socket}{tooltip=Of martlet run --share or --control}{type=string}{required=true}"
    )
    say(
      "arg {number=1}{call=--points}{display=Points}{tooltip=wire-rx, wire-tx, channel-rx, channel-tx, channel-rx:NAME}{type=string}{default=wire-rx,wire-tx}"
    )
  }

  private func captureForWireshark() throws {
    guard let fifo, let socket else {
      throw CommandFailure(code: 64, text: "--capture needs --fifo and --socket")
    }
    var options = CaptureOptions()
    options.points = [points]
    options.filter = extcapCaptureFilter.map { [$0] } ?? []
    options.snapLength = 262_144
    options.buffer = 4
    let session = CaptureSession(
      socket: socket, request: try options.request(), filter: options.filterText, count: nil,
      isQuiet: true)
    try session.run(into: try CaptureOutput(path: fifo))
  }
}
