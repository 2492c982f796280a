import CLinux
import Channel
import Driver
import FuzzHarness
import Glibc
import Memory
import Steering

@testable import Host

/// One turn, which nobody can make end the host.
func turn(_ path: inout SharedPath<ScriptedPair<SharedDevice>>) {
  do throws(HostError) {
    _ = try path.turn()
  } catch {
    fatalError("the host ends: \(error)")
  }
}

/// A change by the control thread.
func change(
  _ change: PathUpdate, _ mailbox: PathMailbox, _ path: inout SharedPath<ScriptedPair<SharedDevice>>
) {
  let update = UnsafeMutablePointer<PathUpdate>.allocate(capacity: 1)
  update.initialize(to: change)
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
    _ pair: ScriptedPair<SharedDevice>, _ mailbox: PathMailbox, _ table: ForwardingTable
  ) -> SharedPath<ScriptedPair<SharedDevice>> {
    let interface = NetworkInterface(
      macAddress: MACAddress((0x52, 0x54, 0, 0x6d, 0x61, 0x72)), mtu: 1500, linkIsUp: true,
      queuePairs: 1, offloads: [.transmitChecksum, .transmitTCP4], features: [])
    return SharedPath(
      queuePair: pair,
      instances: InstanceTable(
        mailbox: mailbox, table: table, window: window,
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

/// A device that brings frames, and has looked at what it is given to send.
final class SharedDevice: ScriptedDevice {
  var packets = 0
  var completes = false
  private let memory: SharedMemory
  /// For whom the frame is that so many others will follow.
  private let recipient: (Int) -> Int
  /// Gets the slots of a packet to be sent, its metadata left out, and the segments that the device may write.
  private let check: (UnsafePointer<Descriptor>, Int, Set<UInt32>) -> Void
  private(set) var posted: [Descriptor] = []
  private var held = Set<UInt32>()
  var underWay: [UInt16] = []

  init(
    _ memory: SharedMemory, recipient: @escaping (Int) -> Int,
    check: @escaping (UnsafePointer<Descriptor>, Int, Set<UInt32>) -> Void
  ) {
    self.memory = memory
    self.recipient = recipient
    self.check = check
  }

  var postedCount: Int { posted.count }

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
      let frame = SharedMemory.frame(from: 99, to: recipient(packets))
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
      check(burst.start + first, last - first + 1, held)
      underWay.append(burst[at].tag)
      at = last + 1
    }
    burst.removeFirst(at)
  }
}

/// An instance that keeps to the rules, and expects that of the host.
struct PoliteInstance: ~Copyable {
  private var end: InstanceEnd
  private let index: Int
  private let memory: SharedMemory
  /// Whether what comes is as the device has brought it.
  private let isUnchanged: Bool
  private var burst = Burst(capacity: 64)

  init(_ index: Int, _ channel: HostileChannel, _ memory: SharedMemory, isUnchanged: Bool) {
    end = InstanceEnd(channel.memory, queue: 0, hostDoorbell: -1)
    self.index = index
    self.memory = memory
    self.isUnchanged = isUnchanged
  }

  mutating func act(sends: Bool = true) {
    do throws(ChannelError) {
      try end.completion.pop(into: &burst)
      burst.removeAll()
      try end.receive.pop(into: &burst)
    } catch {
      fatalError("the host breaks the channel's rules: \(error)")
    }
    let own = memory.window + SharedMemory.base(index)
    var kept = 0
    for place in 0..<burst.count where !burst[place].flags.contains(.offload) {
      let slot = burst[place]
      if isUnchanged {
        let frame = Array(
          UnsafeRawBufferPointer(start: own + Int(slot.position), count: Int(slot.length)))
        require(frame == SharedMemory.frame(from: 99, to: index), "a frame that is not for it")
      }
      burst[kept] = Descriptor(segment: slot.segment)
      kept += 1
    }
    burst.truncate(to: kept)
    end.free.push(&burst)
    require(burst.isEmpty, "no room for segments that come back")
    guard sends else { return }
    let frame = SharedMemory.frame(from: index, to: 99)
    (own + SharedMemory.receiveBytes).copyMemory(from: frame, byteCount: frame.count)
    burst.append(
      Descriptor(
        segment: UInt32(SharedMemory.receiveBytes / 1024), length: UInt32(frame.count), tag: 5))
    end.transmit.push(&burst)
    burst.removeAll()
  }
}
