import Channel
import Stage

/// Holds packets back, in their order, so that no more go than a token bucket lets through (RFC 2697, 3, with one bucket).
public struct Shaper: PacketStage {
  private let shapesReceive: Bool
  private let shapesTransmit: Bool
  private var lanes: [Lane]

  private enum Counter: Int {
    case delayed, droppedByQueue, waiting, sentBytes, turnedAway
  }

  public var counterNames: [String] {
    ["delayed", "dropped_by_queue", "waiting", "shaped_bytes", "too_long"]
  }

  public init(_ configuration: String, _ interface: StageInterface) throws(StageError) {
    var settings = try StageSettings(configuration)
    let rate = try settings.require("rate", like: "rate=10Mbit/s").number(
      units: [
        ("kbit/s", 1000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000), ("bit/s", 1),
      ], 1000...1_000_000_000_000)
    let burst =
      try settings.take("burst")?.number(
        units: [("KB", 1000), ("MB", 1_000_000), ("B", 1)], 64...TokenBucket.maximumBurst) ?? 16_000
    let limit = Int(
      try settings.take("queue")?.number(1...UInt64(StagedPacket.maximumPackets - 256)) ?? 100)
    let ways = try settings.take("way")?.ways() ?? [.transmit]
    shapesReceive = ways.contains(.receive)
    shapesTransmit = ways.contains(.transmit)
    try settings.checkEnd("rate=, burst=, queue=, way=")
    // Each way has a bucket and a queue of its own.
    lanes = (0..<2).map { _ in Lane(TokenBucket(rate: rate, burst: burst), limit: limit) }
  }

  public mutating func process(
    _ packet: inout StagePacket, _ output: inout StageOutput
  ) -> Verdict {
    guard packet.way == .receive ? shapesReceive : shapesTransmit else { return .pass }
    let byteCount = packet.totalBytes
    guard byteCount <= 1 << 24 else {
      output.counters[Counter.turnedAway.rawValue] += 1
      return .drop
    }
    let lane = Int(packet.way.rawValue & 1)
    lanes[lane].release(&output)
    switch lanes[lane].admit(packet.token, byteCount, at: output.now) {
    case .goes:
      output.counters[Counter.sentBytes.rawValue] += UInt64(byteCount)
      return .pass
    case .waits:
      output.counters[Counter.delayed.rawValue] += 1
      output.counters[Counter.waiting.rawValue] += 1
      return .hold
    case .isTooMany:
      output.counters[Counter.droppedByQueue.rawValue] += 1
      return .drop
    }
  }

  public var nextDeadline: UInt64 { min(lanes[0].deadline, lanes[1].deadline) }

  public mutating func service(_ output: inout StageOutput) {
    for lane in lanes.indices { lanes[lane].release(&output) }
  }

  static func countReleased(_ byteCount: Int, _ output: inout StageOutput) {
    output.counters[Counter.sentBytes.rawValue] += UInt64(byteCount)
    output.counters[Counter.waiting.rawValue] -= 1
  }
}

/// One way's bucket and the packets that wait for it.
private struct Lane {
  private var bucket: TokenBucket
  private var waiting: [(token: HeldPacket, byteCount: Int)] = []
  /// Where the first of ``waiting`` is: those before it have gone.
  private var first = 0
  private let limit: Int
  /// When the first that waits can go.
  private(set) var deadline = UInt64.max

  enum Admission {
    case goes
    case waits
    case isTooMany
  }

  init(_ bucket: TokenBucket, limit: Int) {
    self.bucket = bucket
    self.limit = limit
    waiting.reserveCapacity(2 * limit)
  }

  mutating func admit(_ token: HeldPacket, _ byteCount: Int, at now: UInt64) -> Admission {
    bucket.advance(to: now)
    let length = waiting.count - first
    if length == 0 && bucket.take(byteCount) { return .goes }
    if length >= limit { return .isTooMany }
    if waiting.count == 2 * limit {
      waiting.removeFirst(first)
      first = 0
    }
    waiting.append((token, byteCount))
    setDeadline(now)
    return .waits
  }

  /// Lets go of all that there are tokens for.
  mutating func release(_ output: inout StageOutput) {
    if first == waiting.count { return }
    bucket.advance(to: output.now)
    while first < waiting.count, bucket.take(waiting[first].byteCount) {
      output.release(waiting[first].token)
      Shaper.countReleased(waiting[first].byteCount, &output)
      first += 1
    }
    setDeadline(output.now)
  }

  private mutating func setDeadline(_ now: UInt64) {
    if first == waiting.count {
      waiting.removeAll(keepingCapacity: true)
      first = 0
      deadline = .max
    } else {
      deadline = now &+ bucket.delay(waiting[first].byteCount)
    }
  }
}
