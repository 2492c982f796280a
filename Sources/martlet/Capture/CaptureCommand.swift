import ArgumentParser
import CLinux
import Capture
import Glibc
import Supervisor

/// `martlet capture`: packets of a run into a file.
struct CaptureCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "capture", abstract: "Write packets of a run to a pcapng file.",
    discussion: """
      For runs with --share and with --control. Points: wire-rx and wire-tx (what the driver receives and is given), \
      channel-rx and channel-tx (what instances get and send; channel-rx:NAME for one of them), stage-rx and stage-tx (what \
      stages let go, each stage an interface of its own). The filter is libpcap's, \
      as tcpdump takes it. It can be started before the run, and goes on while driver hosts are replaced; it ends with \
      the run, after -c packets, or by Ctrl-C. Packets never wait for it: what it does not read in time is lost, and \
      counted in the file. Exit code: 1 when it is refused or cannot write, 2 for a filter that is none.
      """)

  @OptionGroup var socket: CaptureSocket
  @Option(
    name: [.customShort("w"), .customLong("write")], help: "The file; - for the standard output.")
  var file: String
  @OptionGroup var what: CaptureOptions
  @Option(name: [.customShort("c"), .customLong("count")], help: "End after so many packets.")
  var count: UInt64?

  func run() throws {
    try reporting {
      let request = try what.request()
      let output = try CaptureOutput(path: file)
      let session = CaptureSession(
        socket: socket.path, request: request, filter: what.filterText, count: count)
      try session.run(into: output)
    }
  }
}

/// The socket of a run, which need not be there yet.
struct CaptureSocket: ParsableArguments {
  @Option(
    name: .customLong("socket"),
    help: ArgumentHelp(
      "The socket of `martlet run --share` or `--control`; it is waited for.", valueName: "path"))
  var path: String
}

/// What is to be captured.
struct CaptureOptions: ParsableArguments {
  @Option(
    name: [.customShort("i"), .customLong("point")], parsing: .singleValue,
    help: "Where: several times, or with commas between. wire-rx,wire-tx if not said.")
  var points: [String] = []
  @Option(
    name: [.customShort("s"), .customLong("snapshot-length")], help: "The most bytes of a packet.")
  var snapLength: UInt32 = 262_144
  @Option(name: [.customShort("B"), .customLong("buffer")], help: "MiB for each queue: 1 to 16.")
  var buffer = 4
  @Argument(help: "The filter, as tcpdump takes it.") var filter: [String] = []

  var filterText: String { filter.joined(separator: " ") }

  func request(points usual: [String] = ["wire-rx", "wire-tx"]) throws -> CaptureClient.Request {
    let named = points.flatMap { $0.split(separator: ",").map(String.init) }
    var request = CaptureClient.Request(points: named.isEmpty ? usual : named)
    for point in request.points {
      let parts = point.split(separator: ":", maxSplits: 1)
      guard let known = parts.first.flatMap({ CapturePoint(name: $0) }),
        parts.count == 1 || known.isOfInstances
      else {
        throw CommandFailure(
          code: 2,
          text:
            "there is no point \(point): there are \(CapturePoint.allCases.map(\.name).joined(separator: ", "))"
        )
      }
    }
    guard (1...16).contains(buffer), buffer.nonzeroBitCount == 1 else {
      throw CommandFailure(code: 2, text: "a buffer has 1, 2, 4, 8 or 16 MiB, not \(buffer)")
    }
    request.ringBytes = buffer << 20
    guard (1...262_144).contains(snapLength) else {
      throw CommandFailure(
        code: 2, text: "a snapshot length is 1 to 262144 bytes, not \(snapLength)")
    }
    request.snapLength = snapLength
    request.filter = try FilterCompiler.compile(filterText)
    return request
  }
}
