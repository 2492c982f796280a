import CLinux
import Channel
import Driver
import FuzzHarness
import Glibc
import Memory
import Steering

@testable import Host

/// The host's way of packets for two instances on one NIC: one writes what it likes into its channel and its memory, while
/// another thread changes its channel, the other is polite. Whatever the first does, nothing leaves the host that is not
/// its own, and nobody gets what is for the other.
let sharedPath = FuzzTarget("shared-path") { input in
  var input = input
  let options = input.number(UInt8.self)
  let channels = SharedChannels.shared
  channels.hostile.clear()
  channels.polite.clear()
  let memory = SharedMemory.shared
  let device = SharedDevice(memory)
  do throws(ClaimConflict) {
    let table = try DeliveryTable(
      station: SharedMemory.station,
      claims: [(0, .address(SharedMemory.address(0))), (1, .address(SharedMemory.address(1)))],
      attached: 3)
    let mailbox = PathMailbox(changed: channels.bell)
    defer { mailbox.deallocate() }
    var path = memory.path(ScriptedPair(device: device), mailbox, table.rules)
    let ports = [channels.hostile, channels.polite].enumerated().map { index, channel in
      let port = UnsafeMutablePointer<InstancePort>.allocate(capacity: 1)
      port.initialize(to: memory.port(index, channel, bell: channels.bell))
      return port
    }
    defer {
      for port in ports {
        port.deinitialize(count: 1)
        port.deallocate()
      }
    }
    for port in ports { install(port, table.rules, mailbox, &path) }
    var hostile = InstanceSide(channels.hostile, transmitStart: SharedMemory.receiveBytes)
    var polite = PoliteInstance(channels.polite, memory)
    let seed = options & 0xe0 == 0xe0 ? UInt64(input.number(UInt32.self)) : 0
    Meddler.shared.change(channels.hostile.bytes, seed: seed) {
      while !input.isEmpty {
        let verb = input.number(UInt8.self)
        switch verb & 7 {
        case 0, 1:
          device.packets = Int(verb >> 4)
          device.completes = verb & 8 != 0
          turn(&path)
        case 2: polite.act()
        case 3: memory.writeFrame(&input, verb)
        default: hostile.act(verb, &input)
        }
      }
    }
    device.completes = true
    for _ in 0..<8 { turn(&path) }
    require(device.underWay.isEmpty, "packets are left with the device")
  } catch {
    fatalError(error.description)
  }
}

private func turn(_ path: inout SharedPath<ScriptedPair<SharedDevice>>) {
  do throws(HostError) {
    _ = try path.turn()
  } catch {
    fatalError("an instance ends the host: \(error)")
  }
}

private func install(
  _ port: UnsafeMutablePointer<InstancePort>, _ rules: DeliveryRules, _ mailbox: PathMailbox,
  _ path: inout SharedPath<ScriptedPair<SharedDevice>>
) {
  let update = UnsafeMutablePointer<PathUpdate>.allocate(capacity: 1)
  update.initialize(to: PathUpdate(table: ForwardingTable(claims: rules), install: port))
  mailbox.put(update)
  path.takeUpdate()
  update.deinitialize(count: 1)
  update.deallocate()
}

/// Channels of the two. One for the whole process.
final class SharedChannels: Sendable {
  static let shared = SharedChannels()
  let hostile = HostileChannel()
  let polite = HostileChannel()
  let bell = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
}

/// The window: the host's arena, then those of the two.
final class SharedMemory: @unchecked Sendable {
  static let shared = SharedMemory()
  static let receiveBytes = DeviceSide.receiveBytes
  static let arenaBytes = DeviceSide.arenaBytes
  static let station: UInt64 = 0x5254_006d_6172

  // Invariant: three arenas of `arenaBytes` each, never freed.
  let window = UnsafeMutableRawPointer.allocate(
    byteCount: 3 * SharedMemory.arenaBytes, alignment: 4096)

  private init() {
    window.initializeMemory(as: UInt8.self, repeating: 0, count: 3 * Self.arenaBytes)
  }

  static func address(_ instance: Int) -> NetworkAddress {
    NetworkAddress(ipv4: 0x0a00_0002 + UInt32(instance))
  }

  static func base(_ instance: Int) -> Int { (1 + instance) * arenaBytes }

  func path(
    _ pair: ScriptedPair<SharedDevice>, _ mailbox: PathMailbox, _ rules: DeliveryRules
  ) -> SharedPath<ScriptedPair<SharedDevice>> {
    let interface = NetworkInterface(
      macAddress: MACAddress((0x52, 0x54, 0, 0x6d, 0x61, 0x72)), mtu: 1500, linkIsUp: true,
      queuePairs: 1, offloads: [.transmitChecksum, .transmitTCP4], features: [])
    return SharedPath(
      queuePair: pair,
      instances: InstanceTable(
        mailbox: mailbox, table: ForwardingTable(claims: rules), window: window,
        headers: HeaderSlots(arena: window, first: Self.receiveBytes, byteCount: 64 * 256),
        limits: FrameLimits(interface)),
      ledger: SegmentLedger(firstUnit: 0, byteCount: Self.receiveBytes))
  }

  func port(_ index: Int, _ channel: HostileChannel, bell: Int32) -> InstancePort {
    InstancePort(
      index: index, channel: HostEnd(channel.memory, queue: 0, instanceDoorbell: bell),
      end: channel.memory.end, ledger: SegmentLedger(firstUnit: 0, byteCount: Self.receiveBytes),
      arena: window + Self.base(index), base: UInt64(Self.base(index)),
      transmitPart: UInt64(Self.receiveBytes)..<UInt64(Self.arenaBytes), registeredPart: 0..<0,
      weight: 1, segmentLimit: .max)
  }

  /// The hostile instance writes a frame into its memory, of which some bytes are anything.
  func writeFrame(_ input: inout FuzzInput, _ verb: UInt8) {
    let place = window + Self.base(0) + Self.receiveBytes + Int(verb >> 5) * 1024
    Self.frame(from: 0, to: 99).withUnsafeBytes {
      place.copyMemory(from: $0.baseAddress!, byteCount: $0.count)
    }
    for _ in 0..<Int(verb >> 3 & 3) {
      let offset = Int(input.number(UInt8.self))
      place.storeBytes(of: input.number(), toByteOffset: offset, as: UInt8.self)
    }
  }

  /// A datagram of 60 bytes to or from an instance.
  static func frame(from source: Int, to destination: Int) -> [UInt8] {
    let station: [UInt8] = [0x52, 0x54, 0, 0x6d, 0x61, 0x72]
    let peer: [UInt8] = [2, 0, 0, 0, 0, 1]
    return (source < 2 ? peer + station : station + peer) + [8, 0]
      + [0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, UInt8(2 + source)]
      + [10, 0, 0, UInt8(2 + destination), 0, 7, 0, 9, 0, 26, 0, 0]
      + [UInt8](repeating: UInt8(destination), count: 18)
  }
}

/// A device that brings frames for both, and looks at what it is given to send.
final class SharedDevice: ScriptedDevice {
  var packets = 0
  var completes = false
  private let memory: SharedMemory
  private var posted: [Descriptor] = []
  private var held = Set<UInt32>()
  private(set) var underWay: [UInt16] = []

  init(_ memory: SharedMemory) { self.memory = memory }

  func post(_ burst: inout Burst) {
    for index in 0..<burst.count {
      let end = burst[index].position + UInt64(burst[index].length)
      require(end <= UInt64(SharedMemory.receiveBytes), "posted outside")
      require(held.insert(burst[index].segment).inserted, "a segment is posted twice")
      posted.append(burst[index])
    }
    burst.removeAll()
  }

  func receive(into burst: inout Burst) {
    while packets > 0, burst.room > 0, let slot = posted.popLast() {
      let frame = SharedMemory.frame(from: 99, to: packets % 3 == 2 ? 98 : packets % 3)
      packets -= 1
      held.remove(slot.segment)
      (memory.window + Int(slot.position)).copyMemory(from: frame, byteCount: frame.count)
      burst.append(
        Descriptor(segment: slot.segment, offset: slot.offset, length: UInt32(frame.count)))
    }
    packets = 0
  }

  func transmit(_ burst: inout Burst) {
    var at = 0
    while at < burst.count, let last = burst.endOfPacket(from: at) {
      let first = burst[at].flags.contains(.offload) ? at + 1 : at
      let sender = check(burst[first])
      if first < last { for index in first + 1...last { check(burst[index], of: sender) } }
      underWay.append(burst[at].tag)
      at = last + 1
    }
    burst.removeFirst(at)
  }

  /// The headers lie where only the host writes, and say who sends.
  private func check(_ headers: Descriptor) -> Int {
    let start = Int(headers.position)
    let end = start + Int(headers.length)
    require(
      start >= SharedMemory.receiveBytes && end <= SharedMemory.arenaBytes,
      "headers at \(start) are not the host's")
    let packet = PacketHeader(frame: memory.window + start, byteCount: Int(headers.length))
    require(packet.sourceStation == SharedMemory.station, "from another station")
    for instance in 0..<2 where packet.source == SharedMemory.address(instance) { return instance }
    require(
      packet.kind == .arp && packet.source.low == 0 || packet.kind == .ipv6,
      "\(packet) is from nobody's address")
    return -1
  }

  /// What follows lies in the sender's own memory, and of a received segment in that alone.
  private func check(_ piece: Descriptor, of sender: Int) {
    let start = Int(piece.position)
    let end = start + Int(piece.length)
    guard
      let owner = (0..<2).first(where: {
        start >= SharedMemory.base($0) && end <= SharedMemory.base($0 + 1)
      })
    else { fatalError("\(piece.length) bytes at \(start) are of nobody") }
    require(sender < 0 || owner == sender, "\(owner)'s memory is sent as \(sender)'s")
    let offset = start - SharedMemory.base(owner)
    require(
      offset >= SharedMemory.receiveBytes
        || offset / 2048 == (offset + Int(piece.length) - 1) / 2048,
      "more than one segment")
  }

  func complete(into burst: inout Burst) {
    while completes, burst.room > 0, let tag = underWay.popLast() {
      burst.append(Descriptor(segment: 0, tag: tag))
    }
  }

  var room: Int { 48 - min(48, posted.count) }
}

/// The other instance: it keeps to the rules, and expects that of the host.
private struct PoliteInstance: ~Copyable {
  private var end: InstanceEnd
  private let memory: SharedMemory
  private var burst = Burst(capacity: 64)

  init(_ channel: HostileChannel, _ memory: SharedMemory) {
    end = InstanceEnd(channel.memory, queue: 0, hostDoorbell: -1)
    self.memory = memory
  }

  mutating func act() {
    do throws(ChannelError) {
      try end.completion.pop(into: &burst)
      burst.removeAll()
      try end.receive.pop(into: &burst)
    } catch {
      fatalError("the host breaks the channel's rules: \(error)")
    }
    for index in 0..<burst.count {
      let slot = burst[index]
      let start = memory.window + SharedMemory.base(1) + Int(slot.position)
      let frame = Array(UnsafeRawBufferPointer(start: start, count: Int(slot.length)))
      require(frame == SharedMemory.frame(from: 99, to: 1), "a frame that is not for it")
      burst[index] = Descriptor(segment: slot.segment)
    }
    end.free.push(&burst)
    require(burst.isEmpty, "no room for segments that come back")
    let frame = SharedMemory.frame(from: 1, to: 99)
    (memory.window + SharedMemory.base(1) + SharedMemory.receiveBytes)
      .copyMemory(from: frame, byteCount: frame.count)
    burst.append(
      Descriptor(
        segment: UInt32(SharedMemory.receiveBytes / 1024), length: UInt32(frame.count), tag: 5))
    end.transmit.push(&burst)
    burst.removeAll()
  }
}
