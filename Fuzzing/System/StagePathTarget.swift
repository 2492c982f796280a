import CLinux
import Channel
import Driver
import FuzzHarness
import Glibc
import Memory
import Steering

@testable import Host

/// The host's way of packets through a stage that does what it likes: with packets that it has, with others, and with its
/// channel, which another thread changes meanwhile. The device never gets what is not the host's or the instance's, and when the
/// stage has ended everything is whose it was.
let stagePath = FuzzTarget("stage-path") { input in
  var input = input
  let options = input.number(UInt8.self)
  let channels = SharedChannels.shared
  let stageChannel = StageSide.channel
  channels.polite.clear()
  stageChannel.clear()
  let memory = SharedMemory.shared
  let device = SharedDevice(memory, recipient: { $0 % 2 }, check: checkSent)
  let mailbox = PathMailbox(changed: channels.bell)
  defer { mailbox.deallocate() }
  var plan = StagePlan()
  plan.planned = 1
  plan.receive = 1
  plan.transmit = 1
  plan.failsClosed = options & 1
  do throws(ClaimConflict) {
    let table = try DeliveryTable(
      station: SharedMemory.station, claims: [(0, .address(SharedMemory.address(0)))], attached: 1)
    let forwarding = ForwardingTable(claims: table.rules, stages: plan)
    var path = memory.path(ScriptedPair(device: device), mailbox, forwarding)
    let port = UnsafeMutablePointer<InstancePort>.allocate(capacity: 1)
    port.initialize(to: memory.port(0, channels.polite, bell: channels.bell))
    let stage = UnsafeMutablePointer<StagePort>.allocate(capacity: 1)
    stage.initialize(
      to: StagePort(
        place: 0,
        channel: HostEnd(stageChannel.memory, queue: 0, instanceDoorbell: channels.bell),
        end: stageChannel.memory.end))
    defer {
      port.deinitialize(count: 1)
      port.deallocate()
      stage.deinitialize(count: 1)
      stage.deallocate()
    }
    change(PathUpdate(table: forwarding, install: port, installStage: stage), mailbox, &path)
    var side = StageSide(memory)
    var sender = PoliteInstance(0, channels.polite, memory, isUnchanged: false)
    let seed = options & 0xe0 == 0xe0 ? UInt64(input.number(UInt32.self)) : 0
    Meddler.shared.change(stageChannel.bytes, seed: seed) {
      while !input.isEmpty {
        let verb = input.number(UInt8.self)
        switch verb & 7 {
        case 0, 1:
          device.packets = Int(verb >> 4)
          device.completes = verb & 8 != 0
          turn(&path)
        case 2: sender.act()
        default: side.act(verb, &input)
        }
      }
    }
    change(PathUpdate(table: forwarding, closeStage: 0), mailbox, &path)
    device.completes = true
    for _ in 0..<16 {
      turn(&path)
      sender.act(sends: false)
    }
    require(device.underWay.isEmpty, "packets are left with the device")
    require(path.instances.inFlight == 0, "header places are left")
    require(
      path.ledger.hostCount + device.postedCount == path.ledger.count,
      "\(path.ledger.count - path.ledger.hostCount - device.postedCount) segments are lost")
  } catch {
    fatalError(error.description)
  }
}

/// What is sent lies in the host's arena or the instance's, and not where device or driver would write.
private func checkSent(
  _ slots: UnsafePointer<Descriptor>, _ count: Int, _ held: Set<UInt32>
) {
  for index in 0..<count {
    let start = Int(slots[index].position)
    let end = start + Int(slots[index].length)
    require(end <= 2 * SharedMemory.arenaBytes && start < end, "\(start)..<\(end) is sent")
    require(!slots[index].flags.contains(.headroom), "the driver would write where a stage can")
    require(
      start >= SharedMemory.receiveBytes || !held.contains(UInt32(start / 2048 * 2)),
      "what the device may write is sent")
  }
}

/// What the stage does: something sensible, or not.
private struct StageSide: ~Copyable {
  static let channel = HostileChannel()

  private var end: InstanceEnd
  private let memory: SharedMemory
  private var burst = Burst(capacity: 96)
  /// Packets that it has had, given back or not.
  private var packets: [StagedPacket] = []

  init(_ memory: SharedMemory) {
    end = InstanceEnd(Self.channel.memory, queue: 0, hostDoorbell: -1)
    self.memory = memory
  }

  mutating func act(_ verb: UInt8, _ input: inout FuzzInput) {
    switch verb & 7 {
    case 3: take()
    case 4: give(packets.popLast(), way: StagedPacket.Way(rawValue: UInt16(verb >> 6)))
    case 5: lie(&input)
    case 6: scribble(&input)
    default:
      // Slots that are anything.
      burst.append(
        Descriptor(
          segment: input.number(), offset: input.number(), length: input.number(),
          flags: Descriptor.Flags(rawValue: input.number()), tag: input.number()))
      push()
    }
  }

  private mutating func take() {
    // Another thread may change its indices: then it has nothing.
    try? end.receive.pop(into: &burst)
    var first = 0
    while first + StagedPacket.slots <= burst.count {
      if let packet = StagedPacket(burst.start + first) { packets.append(packet) }
      first += StagedPacket.slots
    }
    burst.removeAll()
    if packets.count > 64 { packets.removeFirst(packets.count - 64) }
  }

  private mutating func give(_ packet: StagedPacket?, way: StagedPacket.Way?) {
    guard var packet else { return }
    if let way { packet.way = way }
    if packet.byteCount == 0, packet.way != .none {
      let frame = SharedMemory.frame(from: packet.way == .receive ? 99 : 0, to: 0)
      if packet.position + UInt64(frame.count) <= UInt64(SharedMemory.arenaBytes) {
        (memory.window + Int(packet.position)).copyMemory(from: frame, byteCount: frame.count)
      }
      packet.byteCount = UInt32(frame.count)
    }
    packet.append(to: &burst)
    push()
  }

  /// One that it has or has had, but for one thing.
  private mutating func lie(_ input: inout FuzzInput) {
    guard !packets.isEmpty else { return }
    var packet = packets[Int(input.number(UInt8.self)) % packets.count]
    switch input.number(UInt8.self) & 7 {
    case 0: packet.number = input.number()
    case 1: packet.position = UInt64(input.number(UInt32.self))
    case 2: packet.byteCount = input.number()
    case 3: packet.position &-= UInt64(input.number(UInt8.self))
    case 4: packet.byteCount &+= UInt32(input.number(UInt8.self))
    case 5: packet.unseenBytes = input.number()
    default:
      packet.metadata.needsChecksum = true
      packet.metadata.checksumStart = input.number()
      packet.metadata.checksumOffset = input.number()
      packet.metadata.segmentSize = input.number()
      packet.metadata.segmentation =
        Offload.Segmentation(rawValue: input.number(UInt8.self) & 7) ?? .none
    }
    give(packet, way: nil)
  }

  /// Bytes of a packet that it has, or has had.
  private func scribble(_ input: inout FuzzInput) {
    guard !packets.isEmpty else { return }
    let packet = packets[Int(input.number(UInt8.self)) % packets.count]
    let place = packet.position + UInt64(input.number(UInt8.self) & 127)
    if place < UInt64(SharedMemory.arenaBytes) {
      (memory.window + Int(place)).storeBytes(of: input.number(), as: UInt8.self)
    }
  }

  private mutating func push() {
    end.transmit.push(&burst)
    burst.removeAll()
  }
}
