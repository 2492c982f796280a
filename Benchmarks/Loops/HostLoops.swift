import Capture
import Channel
import Driver
import Host
import Memory
import VirtioNet

/// The whole path of a host between a device that is only memory and an instance in the same thread.
struct HostOnMemory: ~Copyable {
  private let memory: ChannelMemory
  var device: RawDevice
  var path: PacketPath<VirtioNetQueuePair>
  var instance: InstanceEnd
  var burst = Burst(capacity: 64)
  private var times: HostTimesPage?

  init(_ format: RingFormat, capture: LoopCapture? = nil) throws {
    guard let layout = ChannelLayout(queues: 1, slots: 1024) else {
      throw UnsupportedLoop(description: "no such channel")
    }
    let memory = try ChannelMemory(layout: layout)
    var device = try RawDevice(format)
    // Both ends are awake all the time: no eventfd is ever written.
    var path = PacketPath(
      queuePair: device.takeQueuePair(), channel: HostEnd(memory, queue: 0, instanceDoorbell: -1),
      ledger: SegmentLedger(
        firstUnit: 0, byteCount: RawDevice.partBytes, headerBytes: VirtioNet.receiveHeaderBytes),
      transmitPart: UInt64(RawDevice.partBytes)..<UInt64(RawDevice.arenaBytes),
      tap: capture?.tap(device.arena.address, RawDevice.arenaBytes) ?? .none)
    if capture != nil {
      RawFrame.udp(station: device.driver.interface.macAddress.array, far: 0, isOutgoing: false)
        .fill(device.arena.address, byteCount: RawDevice.partBytes)
    }
    if path.hasUpdate { path.takeUpdate() }
    // The receive ring fills up.
    for _ in 0..<8 { _ = try path.turn() }
    instance = InstanceEnd(memory, queue: 0, hostDoorbell: -1)
    self.memory = memory
    self.device = device
    self.path = path
  }

  /// From now on the path counts times, as in a host process.
  mutating func keepTimes() throws {
    let page = try HostTimesPage()
    path.times = page.times
    times = page
  }

  /// The instance takes what has come, reads 8 bytes of each, and gives it back.
  @inline(__always)
  mutating func takeReceived(_ sum: inout UInt64) throws -> Int {
    try instance.receive.pop(into: &burst)
    let count = burst.count
    for index in 0..<count {
      sum &+= (device.arena.address + Int(burst[index].position)).loadUnaligned(as: UInt64.self)
    }
    instance.free.push(&burst)
    return count
  }

  @inline(__always)
  mutating func send(_ count: Int) {
    burst.appendOwnPackets(count)
    instance.transmit.push(&burst)
  }

  @inline(__always)
  mutating func takeCompleted() throws -> Int {
    try instance.completion.pop(into: &burst)
    let count = burst.count
    burst.removeAll()
    return count
  }
}

/// Device -> driver -> host -> channel -> instance, and the segments back.
public struct HostReceiveLoop: PathLoop, ~Copyable {
  private var host: HostOnMemory
  private var sum: UInt64 = 0
  private var turns: UInt32 = 0
  private let isTimed: Bool

  /// - Parameters:
  ///   - isFiltered: somebody captures, with a filter that takes none of the packets.
  ///   - isTimed: whether statistics of time are kept, as in a host process.
  public init(_ format: RingFormat, isFiltered: Bool = false, isTimed: Bool = false) throws {
    var host = try HostOnMemory(format, capture: isFiltered ? try LoopCapture() : nil)
    if isTimed { try host.keepTimes() }
    self.host = host
    self.isTimed = isTimed
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var packets = 0
    for _ in 0..<bursts {
      host.device.fill(Self.burstSize)
      if isTimed {
        turns &+= 1
        _ = try host.path.turn(turns)
      } else {
        _ = try host.path.turn()
      }
      packets += try host.takeReceived(&sum)
    }
    return packets
  }
}

/// Instance -> channel -> host -> driver -> device, and the completions back.
public struct HostTransmitLoop: PathLoop, ~Copyable {
  private var host: HostOnMemory

  public init(_ format: RingFormat) throws { host = try HostOnMemory(format) }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var packets = 0
    for _ in 0..<bursts {
      host.send(Self.burstSize)
      _ = try host.path.turn()
      host.device.drain(Self.burstSize)
      packets += try host.takeCompleted()
    }
    return packets
  }
}

/// Both at once: the instance sends a packet for each that it receives.
public struct HostForwardLoop: PathLoop, ~Copyable {
  private var host: HostOnMemory
  private var sum: UInt64 = 0

  public init(_ format: RingFormat) throws { host = try HostOnMemory(format) }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var packets = 0
    for _ in 0..<bursts {
      host.device.fill(Self.burstSize)
      _ = try host.path.turn()
      host.send(try host.takeReceived(&sum))
      host.device.drain(Self.burstSize)
      packets += try host.takeCompleted()
    }
    return packets
  }
}
