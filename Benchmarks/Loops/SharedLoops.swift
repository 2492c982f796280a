import CLinux
import Channel
import Driver
import Glibc
import Host
import Memory
import VirtioNet

/// The whole path of a host between a device that is only memory and instances that share it, in the same thread. The
/// last `active` of them have something to do, in equal parts; the others are attached.
struct SharedOnMemory: ~Copyable {
  let instances: AttachedEnds
  let active: Int
  var device: RawDevice
  let host: SteadySharedHost<VirtioNet>
  var burst = Burst(capacity: 64)
  var turns = 0

  /// Of the packets that come.
  static let flows = 64
  static let receiveBytes = 256 << 10
  static let slotBytes = 2 << 20

  /// - Parameters:
  ///   - attached: instances, a power of two up to 64.
  ///   - active: as many, or one.
  ///   - isPlain: whether packets have no IP options, so that flows are known again.
  init(attached: Int, active: Int, capture: LoopCapture? = nil, isPlain: Bool = true) throws {
    let arena = try Arena.withBestPages(byteCount: RawDevice.arenaBytes, name: "martlet-bench")
    let window = try MemoryWindow(
      byteCount: RawDevice.arenaBytes + attached * Self.slotBytes)
    try window.map(arena.descriptor, at: 0, byteCount: RawDevice.arenaBytes)
    let range = DMARange(address: window.address, iova: 0, byteCount: window.byteCount)
    var device = try RawDevice(.split, arena, range)
    let host = try SteadySharedHost(
      &device.driver, window: window, hostArenaBytes: RawDevice.arenaBytes,
      receiveBytes: RawDevice.partBytes, capture: capture?.copies)
    let station = device.driver.interface.macAddress.array
    var instances = AttachedEnds(capacity: active)
    for index in 0..<attached {
      let end = try AttachedEnd(index, host)
      guard index >= attached - active else { continue }
      end.writePackets(from: station)
      instances.append(end)
    }
    // One after the other, whatever the place in a segment at which the driver lets frames begin.
    for segment in 0..<RawDevice.partBytes / 2048 {
      let frame = RawFrame.udp(
        station: station, far: attached - active + segment % active, isOutgoing: false,
        flow: segment % Self.flows, isPlain: isPlain)
      for colour in 0..<8 {
        (device.arena.address + segment * 2048 + (colour + 1) * 64)
          .copyMemory(from: frame, byteCount: frame.count)
      }
    }
    // The receive ring fills up, and whoever has nothing to do is known to have nothing.
    if capture != nil { host.takeUpdate() }
    for _ in 0..<1024 { _ = try host.turn() }
    self.active = active
    self.instances = instances
    self.device = device
    self.host = host
  }

  /// From now on rules are looked at, of which none decides anything else than claims do.
  mutating func follow(rules count: Int) throws {
    let text = (0..<count).map { number in
      number == count - 1
        ? "rule all protocol=udp deliver\n"
        : "rule r\(number) source=10.1.\(number / 250).\(number % 250 + 1) protocol=tcp destination-port=\(1000 + number) drop\n"
    }.joined()
    let bytes = Array(text.utf8)
    let pages = (bytes.count + 4095) / 4096 * 4096
    let memory = try Arena(byteCount: pages, pageSize: .ordinary, name: "martlet-bench")
    memory.address.copyMemory(from: bytes, byteCount: bytes.count)
    let counterBytes = (count * 64 + 4095) / 4096 * 4096
    let counters = try Arena(byteCount: counterBytes, pageSize: .ordinary, name: "martlet-bench")
    guard
      host.ask(
        "rules generation=1 bytes=\(bytes.count) counters=\(counterBytes)",
        [dup(memory.descriptor), dup(counters.descriptor)])
    else { throw UnsupportedLoop(description: "the host does not take \(count) rules") }
  }

  /// Turns between two looks of an instance: where there are more of them than packets in a burst, each has one then.
  private var period: Int { max(1, active / PoolLoop.burstSize) }

  /// The instances take what has come, read 8 bytes of each, and give it back.
  @inline(__always)
  mutating func takeReceived(_ sum: inout UInt64) throws -> Int {
    turns &+= 1
    if turns % period != 0 { return 0 }
    var count = 0
    for index in 0..<active { count += try instances.elements[index].take(by: &burst, &sum) }
    return count
  }

  /// A burst of packets, as many from each of those whose turn it is.
  @inline(__always)
  mutating func send() {
    turns &+= 1
    let senders = active / period
    let first = turns % period &* senders
    for index in first..<first &+ senders {
      burst.appendPackets(PoolLoop.burstSize / senders)
      instances.elements[index].end.transmit.push(&burst)
    }
  }

  /// One packet of each that has something to send: the host looks at them in every turn from now on.
  mutating func awaken() throws {
    var done = 0
    for index in 0..<active {
      burst.appendPackets(1)
      instances.elements[index].end.transmit.push(&burst)
    }
    for _ in 0..<64 {
      _ = try host.turn()
      device.drain(PoolLoop.burstSize)
    }
    for index in 0..<active {
      try instances.elements[index].end.completion.pop(into: &burst)
      done += burst.count
      burst.removeAll()
    }
    if done != active { throw UnsupportedLoop(description: "\(done) of \(active) packets left") }
  }

  /// Of those that sent one turn before.
  @inline(__always)
  mutating func takeCompleted() throws -> Int {
    let senders = active / period
    let first = (turns &+ period &- 1) % period &* senders
    var count = 0
    for index in first..<first &+ senders {
      try instances.elements[index].end.completion.pop(into: &burst)
      count += burst.count
      burst.removeAll()
    }
    return count
  }
}

/// The ends of several instances.
struct AttachedEnds: ~Copyable {
  // Invariant: the first `count` of `capacity` elements are initialised until deinit.
  let elements: UnsafeMutablePointer<AttachedEnd>
  private var count = 0

  init(capacity: Int) { elements = .allocate(capacity: capacity) }

  deinit {
    elements.deinitialize(count: count)
    elements.deallocate()
  }

  /// There must be room.
  mutating func append(_ end: consuming AttachedEnd) {
    (elements + count).initialize(to: end)
    count += 1
  }
}

/// One instance's end.
struct AttachedEnd: ~Copyable {
  private let arena: Arena
  private let memory: ChannelMemory
  var end: InstanceEnd
  private let index: Int

  /// Attaches it, with an address of its own.
  init(_ index: Int, _ host: borrowing SteadySharedHost<VirtioNet>) throws {
    guard let layout = ChannelLayout(queues: 1, slots: 1024) else {
      throw UnsupportedLoop(description: "no such channel")
    }
    let arena = try Arena.withBestPages(byteCount: SharedOnMemory.slotBytes, name: "martlet-bench")
    let memory = try ChannelMemory(layout: layout)
    let record = try Arena(
      byteCount: HostRecord.instanceBytes(
        queues: 1, receiveBytes: SharedOnMemory.receiveBytes), pageSize: .ordinary,
      name: "martlet-bench")
    let base = RawDevice.arenaBytes + index * SharedOnMemory.slotBytes
    let descriptors = [
      dup(arena.descriptor), dup(memory.descriptor), dup(record.descriptor),
      eventfd(0, Int32(EFD_NONBLOCK)),
      eventfd(0, Int32(EFD_NONBLOCK)),
    ]
    let id = 1 << 8 | index
    guard
      host.ask(
        "attach id=\(id) slot=\(base) receive=\(SharedOnMemory.receiveBytes) bytes=\(SharedOnMemory.slotBytes) slots=1024",
        descriptors), host.ask("claim id=\(id) claim=ipv4:10.0.0.\(index + 1)")
    else { throw UnsupportedLoop(description: "instance \(index) cannot be attached") }
    self.index = index
    // Both ends are awake all the time: nobody is ever woken.
    end = InstanceEnd(memory, queue: 0, hostDoorbell: -1)
    self.arena = arena
    self.memory = memory
  }

  /// Of the burst that ``Burst/appendPackets(_:)`` names.
  func writePackets(from station: [UInt8]) {
    let frame = RawFrame.udp(station: station, far: index, isOutgoing: true)
    for tag in 0..<PoolLoop.burstSize {
      (arena.address + SharedOnMemory.receiveBytes + tag * 2048)
        .copyMemory(from: frame, byteCount: frame.count)
    }
  }

  @inline(__always)
  mutating func take(by burst: inout Burst, _ sum: inout UInt64) throws -> Int {
    try end.receive.pop(into: &burst)
    let count = burst.count
    for index in 0..<count {
      sum &+= (arena.address + Int(burst[index].position)).loadUnaligned(as: UInt64.self)
    }
    end.free.push(&burst)
    return count
  }
}

/// Device -> driver -> host -> a copy for an instance -> channel, and the segments back.
public struct SharedReceiveLoop: PathLoop, ~Copyable {
  private var shared: SharedOnMemory
  private var sum: UInt64 = 0
  private var turns: UInt32 = 0
  private let isTimed: Bool
  private var stage: PassingStage?

  /// - Parameters:
  ///   - attached: instances, a power of two up to 64.
  ///   - active: those that get packets: as many, or one.
  ///   - isFiltered: somebody captures, with a filter that takes none of the packets.
  ///   - isTimed: whether statistics of time are kept, as in a host process.
  ///   - rules: how many are looked at for each packet.
  ///   - isStaged: whether all packets go through a stage, in the same thread, that looks at nothing.
  ///   - isPlain: whether packets are such that flows are known again; else each is looked up.
  public init(
    attached: Int, active: Int, isFiltered: Bool = false, isTimed: Bool = false, rules: Int = 0,
    isStaged: Bool = false, isPlain: Bool = true
  ) throws {
    var shared = try SharedOnMemory(
      attached: attached, active: active, capture: isFiltered ? try LoopCapture() : nil,
      isPlain: isPlain)
    if rules > 0 { try shared.follow(rules: rules) }
    stage = isStaged ? try PassingStage(shared.host) : nil
    self.shared = shared
    self.isTimed = isTimed
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var packets = 0
    for _ in 0..<bursts {
      shared.device.fill(Self.burstSize)
      if isTimed {
        turns &+= 1
        _ = try shared.host.turn(turns)
      } else {
        _ = try shared.host.turn()
      }
      try stage?.pass()
      packets += try shared.takeReceived(&sum)
    }
    guard bursts &* Self.burstSize &- packets <= 2 &* Self.burstSize else {
      throw UnsupportedLoop(description: "\(packets) of \(bursts * Self.burstSize) packets came")
    }
    return packets
  }
}

/// Instance -> channel -> host, which copies and checks headers -> driver -> device, and the completions back.
public struct SharedTransmitLoop: PathLoop, ~Copyable {
  private var shared: SharedOnMemory

  /// - Parameters:
  ///   - attached: instances, a power of two up to 64.
  ///   - active: those that send: as many, or one.
  public init(attached: Int, active: Int) throws {
    var shared = try SharedOnMemory(attached: attached, active: active)
    try shared.awaken()
    self.shared = shared
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var packets = 0
    for _ in 0..<bursts {
      shared.send()
      _ = try shared.host.turn()
      shared.device.drain(Self.burstSize)
      packets += try shared.takeCompleted()
    }
    guard bursts &* Self.burstSize &- packets <= 4 &* Self.burstSize else {
      throw UnsupportedLoop(description: "\(packets) of \(bursts * Self.burstSize) packets left")
    }
    return packets
  }
}

/// Frames of 64 bytes whose headers are right, as far as they are looked at.
enum RawFrame {
  /// UDP between 10.0.0.(far + 1) and 10.0.0.254; the bytes that follow in the frame's place are its payload.
  /// - Parameters:
  ///   - flow: up to 65000 are told apart by their source ports.
  ///   - isPlain: without an option in the IP header.
  static func udp(
    station: [UInt8], far: Int, isOutgoing: Bool, flow: Int = 0, isPlain: Bool = true
  ) -> [UInt8] {
    let peer: [UInt8] = [2, 0, 0, 0, 0, 1]
    let own: [UInt8] = [10, 0, 0, UInt8(far + 1)]
    let other: [UInt8] = [10, 0, 0, 254]
    let port = 1000 + flow
    return (isOutgoing ? peer + station : station + peer) + [8, 0]
      + [isPlain ? 0x45 : 0x46, 0, 0, 50, 0, 0, 0, 0, 64, 17, 0, 0]
      + (isOutgoing ? own + other : other + own) + (isPlain ? [] : [1, 1, 1, 0])
      + [UInt8(port >> 8), UInt8(port & 255), 0, 9, 0, isPlain ? 30 : 26, 0, 0]
  }
}

extension [UInt8] {
  /// The frame in each segment of some memory, whatever the place at which the driver lets frames begin.
  func fill(_ memory: UnsafeMutableRawPointer, byteCount: Int) {
    for segment in 0..<byteCount / 2048 {
      for colour in 0..<8 {
        (memory + segment * 2048 + (colour + 1) * 64).copyMemory(from: self, byteCount: count)
      }
    }
  }
}

extension Burst {
  /// Appends packets of 64 bytes in an instance's transmit part; there is room for them.
  @inline(__always)
  fileprivate mutating func appendPackets(_ count: Int) {
    let slots = end
    for tag in 0..<UInt64(count) {
      (slots + Int(tag)).store(
        place: UInt64(SharedOnMemory.receiveBytes >> 10) &+ tag &* 2, rest: 64 | tag &<< 48)
    }
    append(written: count)
  }
}
