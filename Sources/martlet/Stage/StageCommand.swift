import ArgumentParser
import CaptureFile
import Channel
import Foundation
import Stage
import StageKinds

/// `martlet stage`: what stands between the driver and the instances.
struct StageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stage",
    abstract: "Show and try stages: what filters, changes, holds and makes packets.",
    discussion: """
      A stage is a program between the driver and the instances, in a process of its own. Kinds: \
      \(stageKinds.map(\.kind).joined(separator: ", ")).
      """,
    subcommands: [ListStages.self, TestStage.self])
}

/// `martlet stage test`: a capture through a stage, without any run.
struct TestStage: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "test", abstract: "Send a capture through a stage and write what comes out.",
    discussion: """
      The stage's time is the capture's: the same capture gives the same each time. What a stage still holds a minute after \
      the last packet goes on then. Without --way a packet is one that is sent where it comes from the address of --mac, else one \
      that is received.

        martlet stage test vlan --set 'vlan=42' -r in.pcap -w out.pcapng --way transmit

      Exit codes: 0 done, 1 the configuration or a file is wrong, 64 the command line makes no sense.
      """)

  @Argument(help: "The kind of stage.") var kind: String
  @Option(help: ArgumentHelp("A file with its configuration.", valueName: "file"))
  var config: String?
  @Option(help: ArgumentHelp("Its configuration.", valueName: "text")) var set: String?
  @Option(
    name: .customShort("r"),
    help: ArgumentHelp("The capture to read (pcap or pcapng).", valueName: "file"))
  var input: String
  @Option(
    name: .customShort("w"),
    help: ArgumentHelp("The capture to write (pcapng).", valueName: "file"))
  var output: String?
  @Option(help: "Which way all packets go: receive or transmit.") var way: String?
  @Option(help: ArgumentHelp("The NIC's address.", valueName: "address"))
  var mac = "02:00:00:00:00:01"
  @Option(help: "Bytes of the largest packet without its Ethernet header.") var mtu = 1500

  private static let ways: [String: StagedPacket.Way] = [
    "receive": .receive, "transmit": .transmit,
  ]

  private var station: UInt64? {
    let bytes = mac.split(separator: ":", omittingEmptySubsequences: false)
      .map { $0.utf8.count == 2 ? UInt8($0, radix: 16) : nil }
    if bytes.count != 6 || bytes.contains(nil) { return nil }
    return bytes.reduce(0) { $0 << 8 | UInt64($1 ?? 0) }
  }

  func validate() throws {
    if config != nil && set != nil { throw ValidationError("give one of --config and --set") }
    if let way, Self.ways[way] == nil {
      throw ValidationError("--way is receive or transmit, not \(way)")
    }
    if station == nil { throw ValidationError("--mac \(mac) is no Ethernet address") }
    if !stageKinds.contains(where: { $0.kind == kind }) {
      throw ValidationError(
        "there is no stage \(kind): there are \(stageKinds.map(\.kind).joined(separator: ", "))")
    }
  }

  func run() throws {
    try reporting {
      guard let stage = stageKinds.first(where: { $0.kind == kind }), let station else { return }
      let frames = try CaptureReader.frames(of: input)
      let packets = frames.map { BenchPacket($0.bytes, way(of: $0, station), at: $0.time) }
      let configuration = try text()
      let result: StageBenchResult
      do throws(StageError) {
        result = try stage.test(
          packets, configuration: configuration,
          interface: StageInterface(
            name: kind, station: station, mtu: mtu))
      } catch {
        throw CommandFailure(code: 1, text: "\(kind): \(config.map { "\($0): " } ?? "")\(error)")
      }
      if let output { try write(result.packets, to: output) }
      let cut = frames.count { $0.bytes.count < $0.byteCount }
      if cut > 0 { say("\(cut) of \(frames.count) packets were cut by the capture") }
      say("\(frames.count) packets in, \(result.packets.count) out")
      for counter in result.counters where counter.value > 0 {
        say("\(counter.name): \(counter.value)")
      }
    }
  }

  private func way(of frame: CapturedFrame, _ station: UInt64) -> StagedPacket.Way {
    if let way { return Self.ways[way] ?? .receive }
    let source = frame.bytes.dropFirst(6).prefix(6).reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
    return source == station ? .transmit : .receive
  }

  private func text() throws -> String {
    guard let config else { return set ?? "" }
    do {
      return try String(contentsOfFile: config, encoding: .utf8)
    } catch {
      throw CommandFailure(code: 1, text: "\(config): cannot be read")
    }
  }

  private func write(_ packets: [BenchPacket], to path: String) throws {
    var file = CaptureFile(application: "martlet stage test")
    let interface = file.addInterface(
      kind, description: "behind the stage \(kind)", snapLength: 0, filter: "")
    for packet in packets {
      packet.bytes.withUnsafeBytes {
        file.add(
          .init(
            interface: interface, time: packet.time, byteCount: UInt32($0.count),
            isInbound: packet.way == .receive, queue: 0,
            comment: packet.isMade ? "made by the stage" : nil), $0)
      }
    }
    do {
      try Data(file.take()).write(to: URL(filePath: path))
    } catch {
      throw CommandFailure(code: 1, text: "\(path): cannot be written")
    }
  }
}
