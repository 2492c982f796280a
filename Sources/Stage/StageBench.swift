import Channel
import Glibc
import Memory

/// A stage without a run: packets go in as bytes and come out as bytes, each with its way and its time. The same code as in
/// a stage's process looks at them; time is what the packets say, so that the same packets give the same each time.
///
///     var bench = try StageBench<Mine>("limit=3")
///     let out = bench.send(BenchPacket(frame, .receive))
///
/// One thread.
public struct StageBench<Stage: PacketStage & ~Copyable>: ~Copyable {
  @usableFromInline var running: RunningStage<Stage>
  let memory: BenchMemory
  // Numbers that the stage does not have.
  var free: [UInt16]
  private var spares = 0
  private var unseen: [UInt16: ArraySlice<UInt8>] = [:]
  private var made: Set<UInt16> = []
  private var burst = Burst(capacity: StagedPacket.slots)
  /// Packets that were not given to the stage: it had all numbers, or they were too long.
  public private(set) var refused = 0

  /// - Parameters:
  ///   - configuration: as it would stand in the policy.
  ///   - interface: that the stage stands before.
  ///   - packetBytes: the longest packet.
  ///   - packets: how many the stage can have at once.
  ///   - room: bytes before and behind each.
  /// - Throws: what is wrong in the configuration.
  @inlinable
  public init(
    _ configuration: String = "", interface: StageInterface = StageInterface(),
    packetBytes: Int = 2048, packets: Int = StagedPacket.maximumPackets, room: Int = 64
  ) throws(StageError) {
    try self.init(
      of: Stage(configuration, interface), packetBytes: packetBytes, packets: packets, room: room)
  }

  /// A bench of a stage that has been made already.
  public init(
    of stage: consuming Stage, packetBytes: Int = 2048,
    packets: Int = StagedPacket.maximumPackets, room: Int = 64
  ) throws(StageError) {
    precondition(packets > StagedPacket.spares && packets <= StagedPacket.maximumPackets)
    memory = BenchMemory(packets: packets, room: room, packetBytes: packetBytes)
    running = try RunningStage(
      stage, queues: 1, arena: memory.start, byteCount: memory.byteCount)
    free = (0..<UInt16(packets)).reversed()
    fillSpares()
  }

  /// Nanoseconds, as the stage has last seen them.
  public var now: UInt64 { running.output.now }

  /// Sends a packet through, after what the stage does by itself until then.
  /// - Returns: what comes out meanwhile, in that order.
  public mutating func send(_ packet: BenchPacket) -> [BenchPacket] {
    var departures = advance(to: packet.time)
    let head = min(packet.bytes.count, packet.seenBytes)
    guard memory.holds(head), let number = free.popLast() else {
      refused += 1
      return departures
    }
    unseen[number] = packet.bytes[head...]
    give(memory.place(packet, number))
    departures += collect()
    return departures
  }

  /// Lets time pass: the stage is called at each of its deadlines.
  /// - Returns: what comes out meanwhile.
  public mutating func advance(to time: UInt64) -> [BenchPacket] {
    var departures: [BenchPacket] = []
    // A stage whose deadline does not move is not called for ever.
    var calls = 0
    while running.stage.nextDeadline <= time, calls < 1000 {
      calls = running.stage.nextDeadline > now ? 0 : calls + 1
      running.output.clock = max(now, running.stage.nextDeadline)
      _ = running.service()
      departures += collect()
    }
    running.output.clock = max(running.output.now, time)
    return departures
  }

  /// The stage is told to stop.
  /// - Returns: what it held.
  public mutating func stop() -> [BenchPacket] {
    running.releaseAll()
    return collect()
  }

  /// All packets, one after the other, what the stage does by itself within a minute after them, and its end.
  public mutating func run(_ packets: [BenchPacket]) -> StageBenchResult {
    var departures: [BenchPacket] = []
    for packet in packets { departures += send(packet) }
    departures += advance(to: now + 60_000_000_000)
    departures += stop()
    return StageBenchResult(packets: departures, counters: counters)
  }

  /// What the runtime counts and what the stage counts.
  public var counters: [(name: String, value: UInt64)] { running.output.counters.read() }

  /// One of them; 0 where there is none of that name.
  public subscript(counter: String) -> UInt64 {
    counters.first { $0.name == counter }?.value ?? 0
  }

  // MARK: The host's side

  private mutating func give(_ packet: StagedPacket) {
    burst.removeAll()
    packet.append(to: &burst)
    do {
      try running.take(burst, queue: 0)
    } catch {
      preconditionFailure("the bench broke the channel's rules: \(error)")
    }
  }

  private mutating func fillSpares() {
    while spares < StagedPacket.spares, let number = free.popLast() {
      made.insert(number)
      spares += 1
      give(memory.packet(number, .none, 0))
    }
  }

  private mutating func collect() -> [BenchPacket] {
    var departures: [BenchPacket] = []
    var first = 0
    while first < running.output.queues[0].leaving.count {
      guard let packet = StagedPacket(running.output.queues[0].leaving.start + first) else {
        preconditionFailure("the runtime gave no packet")
      }
      first += StagedPacket.slots
      let isMade = made.remove(packet.number) != nil
      if isMade { spares -= 1 }
      let rest = unseen.removeValue(forKey: packet.number) ?? []
      free.append(packet.number)
      if packet.way == .none { continue }
      var metadata = packet.metadata
      metadata.tag = 0
      departures.append(
        BenchPacket(
          memory.bytes(packet) + rest, packet.way, at: now, metadata: metadata,
          isChecked: packet.isChecked, mark: packet.mark, seenBytes: Int(packet.byteCount),
          isMade: isMade))
    }
    running.output.queues[0].leaving.removeAll()
    fillSpares()
    return departures
  }
}

/// A packet that goes into a ``StageBench`` or comes out of it.
public struct BenchPacket: Sendable, Equatable {
  /// From the Ethernet header on, those that the stage does not see included.
  public var bytes: [UInt8]
  /// Which way it goes.
  public var way: StagedPacket.Way
  /// Nanoseconds.
  public var time: UInt64
  /// What is left to the device. Its tag is not looked at.
  public var metadata: Offload
  /// The device has checked its transport checksum.
  public var isChecked: Bool
  /// What a rule has said of it.
  public var mark: UInt16
  /// Bytes that the stage sees.
  public var seenBytes: Int
  /// The stage has made it.
  public var isMade: Bool

  /// A packet that goes in.
  public init(
    _ bytes: [UInt8], _ way: StagedPacket.Way, at time: UInt64 = 0, metadata: Offload = Offload(),
    isChecked: Bool = false, mark: UInt16 = 0, seenBytes: Int = .max, isMade: Bool = false
  ) {
    self.bytes = bytes
    self.way = way
    self.time = time
    self.metadata = metadata
    self.isChecked = isChecked
    self.mark = mark
    self.seenBytes = seenBytes
    self.isMade = isMade
  }
}

/// What came of a bench's packets.
public struct StageBenchResult: Sendable {
  /// In the order in which they came out.
  public var packets: [BenchPacket]
  /// The runtime's, then the stage's.
  public var counters: [(name: String, value: UInt64)]

  /// One of the counters; 0 where there is none of that name.
  public subscript(counter: String) -> UInt64 {
    counters.first { $0.name == counter }?.value ?? 0
  }
}

/// A driver host's memory for packets: a place for each number.
@usableFromInline
final class BenchMemory {
  // Invariant: `byteCount` bytes until deinit.
  @usableFromInline let start: UnsafeMutableRawPointer
  @usableFromInline let byteCount: Int
  private let room: Int
  private let placeBytes: Int

  init(packets: Int, room: Int, packetBytes: Int) {
    self.room = room
    placeBytes = (packetBytes + 2 * room + 63) / 64 * 64
    byteCount = placeBytes * packets
    start = .allocate(byteCount: byteCount, alignment: 64)
  }

  deinit { start.deallocate() }

  func holds(_ byteCount: Int) -> Bool { byteCount <= placeBytes - 2 * room }

  func packet(_ number: UInt16, _ way: StagedPacket.Way, _ byteCount: Int) -> StagedPacket {
    StagedPacket(
      number: number, way: way, position: UInt64(Int(number) * placeBytes + room),
      byteCount: UInt32(byteCount), roomBefore: UInt32(room),
      roomBehind: UInt32(placeBytes - room - byteCount))
  }

  /// The packet, in the place of a number.
  func place(_ packet: BenchPacket, _ number: UInt16) -> StagedPacket {
    let head = min(packet.bytes.count, packet.seenBytes)
    write(packet.bytes[..<head], number)
    var staged = self.packet(number, packet.way, head)
    staged.metadata = packet.metadata
    staged.isChecked = packet.isChecked
    staged.mark = packet.mark
    staged.unseenBytes = UInt32(packet.bytes.count - head)
    return staged
  }

  private func write(_ bytes: ArraySlice<UInt8>, _ number: UInt16) {
    bytes.withUnsafeBytes {
      guard let source = $0.baseAddress else { return }
      memcpy(start + Int(number) * placeBytes + room, source, $0.count)
    }
  }

  /// The head, which must lie in its number's place: what a stage gives back beyond that is its mistake.
  func bytes(_ packet: StagedPacket) -> [UInt8] {
    let place = UInt64(Int(packet.number) * placeBytes)
    precondition(
      packet.position >= place
        && packet.position + UInt64(packet.byteCount) <= place + UInt64(placeBytes),
      "a packet left its room")
    return Array(
      UnsafeRawBufferPointer(
        start: start + Int(packet.position), count: Int(packet.byteCount)))
  }
}
