import ArgumentParser
import CLinux
import Capture
import Glibc
import Steering
import Supervisor

/// `martlet trace`: packets of one flow on their way through a run.
struct FollowCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace",
    abstract: "Follow packets through the rooms of a run, with a time at each.",
    discussion: """
      A line for each packet at each point: when, on which queue, its number among the packets of that queue, where, and \
      how long after the point before; between wire and channel, `steering` with the rule that a packet meets, if any. \
      Received packets that no instance got are said to be so. For runs with --share and \
      with --control. The clock is read for each packet, which costs the path more than a capture does. Exit code: 1 \
      when it is refused, 2 for a filter that is none.
      """)

  @OptionGroup var socket: CaptureSocket
  @Option(name: [.customShort("c"), .customLong("count")], help: "End after so many lines.")
  var count: UInt64?
  @Argument(help: "The filter, as tcpdump takes it.") var filter: [String] = []

  func run() throws {
    try reporting {
      var options = CaptureOptions()
      options.points = CapturePoint.allCases.map(\.name)
      options.filter = filter
      options.snapLength = UInt32(PacketHeader.maximumBytes)
      options.buffer = 4
      var request = try options.request()
      request.isPrecise = true
      let end = linux_termination_descriptor()
      guard end >= 0 else { throw CommandFailure(code: 1, text: "signals cannot be waited for") }
      let session = CaptureSession(
        socket: socket.path, request: request, filter: options.filterText, count: nil)
      guard var client = try session.awaitRun(until: end) else { return }
      writeLine("tracing, until Ctrl-C", to: 2)
      follow(&client, session, until: end)
    }
  }

  private func follow(_ client: inout CaptureClient, _ session: CaptureSession, until end: Int32) {
    var trail = PacketTrail()
    var lines: UInt64 = 0
    while true {
      client.hear()
      let isLast = client.hasEnded || session.isReadable(end)
      var records: [(CaptureRecord, Int, [UInt8])] = []
      for queue in 0..<client.reader.queues {
        client.reader.read(queue: queue, limit: 256) { records.append(($0, queue, Array($1))) }
      }
      records.sort { $0.0.time < $1.0.time }
      for (record, queue, bytes) in records {
        let rule = client.ruleName(record)
        for line in trail.lines(record, queue: queue, bytes, client.names, rule: rule) {
          say(line)
          lines += 1
          if let count, lines >= count { return }
        }
      }
      if isLast && records.isEmpty { return }
      if records.isEmpty { session.wait(for: client.descriptor, end, after: 0) }
    }
  }
}

/// What has been seen of packets, to tell how long each took from point to point.
struct PacketTrail {
  private struct Key: Hashable {
    var queue: Int
    var number: UInt32
    var isInbound: Bool
  }
  private var last: [Key: UInt64] = [:]
  /// Received packets of which no instance's record has come yet, in order.
  private var hasStages = false
  private var undelivered: [(key: Key, time: UInt64, rule: String?)] = []

  /// Packets that are remembered.
  private static let limit = 4096

  mutating func lines(
    _ record: CaptureRecord, queue: Int, _ bytes: [UInt8], _ names: [UInt32: String],
    rule: String?
  ) -> [String] {
    guard let point = CapturePoint(rawValue: record.point) else { return [] }
    if point.isOfStages { hasStages = true }
    let key = Key(queue: queue, number: record.number, isInbound: point.isInbound)
    var lines: [String] = []
    // A burst is delivered as a whole: what comes after it at the wire says that it has been.
    if point == .wireReceive {
      lines = lost(before: record)
      undelivered.append((key, record.time, rule))
    } else if point == .channelReceive {
      undelivered.removeAll { $0.key == key }
    }
    let place =
      point.isOfInstances || point.isOfStages
      ? "\(point.name):\(names[record.instance] ?? "\(record.instance)")" : point.name
    let since = last[key].map { "  +\(record.time &- $0) ns" } ?? ""
    if last.count > Self.limit { last = [:] }
    last[key] = record.time
    let packet =
      "\(Self.clock(record.time)) q\(queue) \(point.isInbound ? "in" : "out") #\(record.number)"
    lines.append("\(packet) \(place)\(since)  \(record.packetBytes) bytes  \(Self.summary(bytes))")
    // The room behind the wire, whatever comes of it there.
    if point == .wireReceive, let rule { lines.append("\(packet) steering  rule \(rule)") }
    return lines
  }

  /// A burst is delivered before the next one comes, but for what a stage holds.
  private func isLate(
    _ record: CaptureRecord, behind first: (key: Key, time: UInt64, rule: String?)
  ) -> Bool {
    hasStages
      ? record.time > first.time + 1_000_000_000
      : record.number / 256 != first.key.number / 256
  }

  /// What has come 256 packets before, at least, and went to no instance.
  private mutating func lost(before record: CaptureRecord) -> [String] {
    var lines: [String] = []
    while let first = undelivered.first,
      isLate(record, behind: first) || undelivered.count > Self.limit
    {
      undelivered.removeFirst()
      let why =
        first.rule.map { "rule \($0) matches: `martlet rules list` says what it does" }
        ?? "`martlet stats` says why"
      lines.append(
        "\(Self.clock(first.time)) q\(first.key.queue) in #\(first.key.number) no instance got it: \(why)"
      )
    }
    return lines
  }

  /// The time of day, as tcpdump writes it, to the nanosecond.
  private static func clock(_ nanoseconds: UInt64) -> String {
    var seconds = time_t(nanoseconds / 1_000_000_000)
    var parts = tm()
    localtime_r(&seconds, &parts)
    func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let rest = String(nanoseconds % 1_000_000_000)
    return
      "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)).\(String(repeating: "0", count: 9 - rest.count))\(rest)"
  }

  private static func summary(_ bytes: [UInt8]) -> String {
    let header = bytes.withUnsafeBytes { buffer -> PacketHeader? in
      buffer.baseAddress.map { PacketHeader(frame: $0, byteCount: buffer.count) }
    }
    guard let header else { return "" }
    switch header.kind {
    case .ipv4, .ipv6:
      let ports = header.sourcePort != 0 || header.destinationPort != 0
      return
        "\(Self.text(header.source))\(ports ? " \(header.sourcePort)" : "") > \(Self.text(header.destination))\(ports ? " \(header.destinationPort)" : "") protocol \(header.transport)"
    case .arp: return "arp \(Self.text(header.source)) > \(Self.text(header.destination))"
    default: return "\(header.kind)"
    }
  }

  private static func text(_ address: NetworkAddress) -> String {
    // As a claim has it, without the word before.
    String(Claim.address(address).description.drop { $0 != ":" }.dropFirst())
  }
}
