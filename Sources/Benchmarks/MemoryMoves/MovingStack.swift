import CLinux
import Channel
import Driver
import Memory
import Stacks
import Supervisor

/// What a ``MovingStack`` has found.
final class MoveFindings {
  /// Nanoseconds from the wish to the first segment of the new memory.
  var growth: [UInt64] = []
  /// Nanoseconds from the wish until the memory is the system's again.
  var shrinking: [UInt64] = []
  /// Packets that the device has sent, and the time, without moves and with them.
  var still = (packets: UInt64(0), nanoseconds: UInt64(0))
  var moving = (packets: UInt64(0), nanoseconds: UInt64(0))
}

/// An instance that sends as many packets as it can, and meanwhile grows and shrinks.
struct MovingStack: StackInstance, ~Copyable {
  static let byteCount = 64 << 20

  private let channel: InstanceChannel
  private let findings: MoveFindings
  private var pool: SegmentPool
  private var client: CommandClient
  private var sending = Burst(capacity: 64)
  private var inFlight = PacketTags<UInt32>(count: 512)
  private var phase = Phase.still
  private var sent: UInt64 = 0
  private let window: UInt64
  private var phaseStart = monotonic_nanoseconds()
  private var wish: UInt64 = 0
  private var hasGrown = false
  private var hasAnswer = false
  private let first: Int
  private let frame: [UInt8]

  private enum Phase { case still, growing, shrinking, over }

  /// - Parameter milliseconds: of each half, without moves and with them.
  init(
    _ environment: InstanceEnvironment, channel: InstanceChannel, findings: MoveFindings,
    milliseconds: Int
  ) throws(StackError) {
    guard let client = try environment.makeCommandClient() else {
      throw StackError("the supervisor has no command channel")
    }
    self.channel = channel
    self.findings = findings
    self.client = client
    first = environment.arena.byteCount
    window = UInt64(milliseconds) * 1_000_000
    pool = SegmentPool(
      arena: environment.arena.address, range: environment.receiveBytes..<first,
      maximum: environment.welcome.maximumBytes)
    // UDP from 10.0.0.2 to 10.0.0.1 port 9, 18 bytes of it, without a sum.
    frame =
      [0x02, 0, 0, 0, 0, 1] + environment.macAddress + [
        8, 0, 0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0x26, 0xbd, 10, 0, 0, 2, 10, 0, 0, 1, 0, 9, 0,
        9, 0, 26, 0, 0,
      ] + [UInt8](repeating: 0, count: 18)
  }

  mutating func receive(_ burst: inout Burst, queue: Int) {
    for index in 0..<burst.count where !burst[index].flags.contains(.offload) {
      channel.giveBack(burst[index].segment, queue: queue)
    }
  }

  mutating func completed(_ burst: inout Burst) {
    for index in 0..<burst.count {
      if let segment = inFlight.finish(burst[index].tag) {
        pool.release(segment)
        sent += 1
      }
    }
  }

  mutating func service() throws(StackError) -> Bool {
    while sending.room > 0, let tag = inFlight.next, let segment = pool.allocate(byteCount: 64) {
      let target = pool.address(of: segment)
      frame.withUnsafeBytes { target.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
      sending.append(
        Descriptor(segment: segment.unit, length: UInt32(frame.count), tag: tag))
      inFlight.take(for: segment.unit)
    }
    channel.ends[0].transmit.push(&sending)
    try goOn(at: monotonic_nanoseconds())
    return true
  }

  private mutating func goOn(at now: UInt64) throws(StackError) {
    let completion = try answer()
    let isAnswered = completion != nil
    if let completion, completion.status != .done {
      throw StackError("memory cannot be moved: \(completion.status)")
    }
    switch phase {
    case .still:
      if now - phaseStart < window { return }
      findings.still = (sent, now - phaseStart)
      phaseStart = now
      sent = 0
      try ask(.grow, .growing, now)
    case .growing:
      // The memory and the answer come over two ways.
      if isAnswered { hasAnswer = true }
      if hasGrown && hasAnswer { try ask(.shrink, .shrinking, now) }
    case .shrinking:
      if !isAnswered { return }
      findings.shrinking.append(now - wish)
      if now - phaseStart < window { return try ask(.grow, .growing, now) }
      findings.moving = (sent, now - phaseStart)
      phase = .over
    case .over: break
    }
  }

  private mutating func answer() throws(StackError) -> CommandCompletion? {
    do throws(CommandError) {
      return try client.poll()
    } catch {
      throw StackError("\(error)")
    }
  }

  private mutating func ask(
    _ command: CommandNumber, _ next: Phase, _ now: UInt64
  ) throws(StackError) {
    do throws(CommandError) {
      _ = try client.submit(CommandSubmission(command, UInt64(Self.byteCount)))
    } catch {
      throw StackError("\(error)")
    }
    wish = now
    phase = next
    hasGrown = false
    hasAnswer = false
  }

  mutating func memoryDidGrow(to byteCount: Int) {
    pool.grow(to: byteCount)
    if byteCount < first + Self.byteCount { return }
    let now = monotonic_nanoseconds()
    findings.growth.append(now - wish)
    hasGrown = true
  }

  private var isShrinking = false

  mutating func memoryWillShrink(to byteCount: Int) -> Bool {
    if !isShrinking { pool.beginShrink(to: byteCount) }
    isShrinking = true
    return pool.leavingCount == 0
  }

  var memoryEndInUse: Int { pool.freeEnd }

  mutating func memoryDidShrink(to byteCount: Int) {
    isShrinking = false
    if pool.leavingCount > 0 { pool.beginShrink(to: byteCount) }
    _ = pool.finishShrink()
  }

  var exitCode: Int32? { phase == .over ? 0 : nil }
}
