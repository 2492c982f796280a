import ArgumentParser
import Glibc
import Steering
import Supervisor

/// `martlet rules test`: which rule a packet would hit, and why.
struct TestRules: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "test", abstract: "Say which rule each packet of a capture would hit, and why.",
    discussion: """
      The rules are those of a file, or of a run (--socket); no packet is sent. With --why, each rule that is looked at \
      before the one that matches, with the first of its conditions that the packet does not meet. At the end, how many \
      packets each rule would get. Exit code: 1 where a file cannot be read.
      """)

  @Option(help: ArgumentHelp("A TOML file, or a text with a rule a line.", valueName: "file"))
  var rules: String?
  @Option(help: ArgumentHelp("The rules of a run instead.", valueName: "path"))
  var socket: String?
  @Option(
    help: ArgumentHelp("A frame from its Ethernet header on, in hexadecimal.", valueName: "bytes"))
  var hex: [String] = []
  @Flag(help: "Also why no rule before it matches.") var why = false
  @Argument(help: "Captures, as tcpdump or Wireshark write them (pcap or pcapng).")
  var captures: [String] = []

  func validate() throws {
    if (rules == nil) == (socket == nil) {
      throw ValidationError("name the rules: --rules FILE, or --socket of a run")
    }
    if hex.isEmpty && captures.isEmpty {
      throw ValidationError("give a capture, or a frame with --hex")
    }
  }

  func run() throws {
    try reporting {
      let set = try chosen()
      let classifier = try Classifier(set)
      var hits: [String: Int] = [:]
      for text in hex {
        guard let bytes = Self.bytes(text) else {
          throw ValidationError("--hex takes an even number of hexadecimal digits, not \(text)")
        }
        try explain(bytes, "frame", set, classifier, &hits)
      }
      for path in captures {
        var number = 0
        for frame in try CaptureReader.frames(of: path) {
          number += 1
          try explain(frame.bytes, "\(path):\(number)", set, classifier, &hits)
        }
      }
      for rule in set.rules { say("\(rule.name): \(hits[rule.name] ?? 0)") }
      say("by claims: \(hits[""] ?? 0)")
    }
  }

  private func chosen() throws -> RuleSet {
    if let rules { return try GivenRules.rules(of: rules) }
    var sharing = SharingOption()
    sharing.socket = socket ?? ""
    return try RunRules(sharing).set()
  }

  private func explain(
    _ frame: [UInt8], _ name: String, _ set: RuleSet, _ classifier: borrowing Classifier,
    _ hits: inout [String: Int]
  ) throws {
    let index = frame.withUnsafeBytes { bytes in
      guard let start = bytes.baseAddress else { return -1 }
      return classifier.view.match(
        PacketHeader(frame: start, byteCount: bytes.count), frame: start, byteCount: bytes.count)
    }
    hits[index < 0 ? "" : set.rules[index].name, default: 0] += 1
    let rule = index < 0 ? "no rule: claims decide" : set.rules[index].name
    say("\(name): hits \(rule)")
    if why {
      for miss in try set.explain(frame).misses {
        say("  not \(miss.rule): \(miss.condition), and the packet has \(miss.packet)")
      }
    }
  }

  private static func bytes(_ text: String) -> [UInt8]? {
    let digits = text.filter { !$0.isWhitespace && $0 != ":" }.compactMap(\.hexDigitValue)
    guard digits.count % 2 == 0, !digits.isEmpty,
      digits.count == text.count(where: { !$0.isWhitespace && $0 != ":" })
    else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
  }
}
