import CLinux
import Channel
import Driver
import FuzzHarness
import Glibc
import Host
import Memory

/// The host's way of packets, with an instance that writes what it likes into the channel's memory while another thread
/// changes it, and a device that keeps to its contract.
let packetPath = FuzzTarget("packet-path") { input in
  var input = input
  let options = input.number(UInt8.self)
  let channel = HostileChannel.shared
  channel.clear()
  let device = DeviceSide()
  var path = PacketPath(
    queuePair: ScriptedPair(device: device),
    channel: HostEnd(channel.memory, queue: 0, instanceDoorbell: -1),
    ledger: SegmentLedger(firstUnit: 0, byteCount: DeviceSide.receiveBytes),
    transmitPart: UInt64(DeviceSide.receiveBytes)..<UInt64(DeviceSide.arenaBytes))
  var instance = InstanceSide(channel, transmitStart: DeviceSide.receiveBytes)
  let seed = options & 0xe0 == 0xe0 ? UInt64(input.number(UInt32.self)) : 0
  Meddler.shared.change(channel.bytes, seed: seed) {
    while !input.isEmpty {
      let verb = input.number(UInt8.self)
      if verb & 3 != 0 {
        instance.act(verb, &input)
        continue
      }
      device.packets = Int(verb >> 4)
      device.completes = verb & 4 != 0
      do throws(HostError) {
        _ = try path.turn()
      } catch {
        guard case .instance(let offence) = error else { fatalError("\(error)") }
        _ = offence.description
        return
      }
    }
  }
}

/// A channel's memory as an instance has it: writable to the last byte. Made once.
final class HostileChannel: @unchecked Sendable {
  static let shared = HostileChannel()

  let memory: ChannelMemory
  private let view: Arena
  var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: view.address, count: view.byteCount)
  }

  init() {
    let layout = ChannelLayout(queues: 1, slots: 64)!
    do {
      memory = try ChannelMemory(layout: layout)
      view = try Arena(adopting: dup(memory.descriptor), byteCount: layout.byteCount)
    } catch {
      fatalError("\(error)")
    }
  }

  /// As it is made.
  func clear() {
    // All but magic, version, queues and slots.
    UnsafeMutableRawBufferPointer(rebasing: bytes[16...])
      .initializeMemory(as: UInt8.self, repeating: 0)
  }
}

/// What the instance does: something sensible, or not.
struct InstanceSide: ~Copyable {
  private let channel: HostileChannel
  private let transmitStart: Int
  private var end: InstanceEnd
  private var received = Burst(capacity: 64)
  private var sent = Burst(capacity: 64)

  init(_ channel: HostileChannel, transmitStart: Int) {
    self.channel = channel
    self.transmitStart = transmitStart
    end = InstanceEnd(channel.memory, queue: 0, hostDoorbell: -1)
  }

  mutating func act(_ verb: UInt8, _ input: inout FuzzInput) {
    switch verb >> 2 & 7 {
    case 0:
      // Sends a piece of its own, or of a packet with more to come.
      push(
        Descriptor(
          segment: UInt32(transmitStart / 1024 + Int(verb >> 5)), offset: 0,
          length: UInt32(input.number(UInt8.self)) + 1,
          flags: .init(rawValue: UInt16(input.number(UInt8.self)) & 3), tag: UInt16(verb)))
    case 1:
      push(
        Descriptor(
          segment: input.number(), offset: input.number(), length: input.number(),
          flags: .init(rawValue: input.number()), tag: input.number()))
    case 2, 3:
      // Gives back what has come.
      try? end.receive.pop(into: &received)
      end.free.push(&received)
      received.removeAll()
      try? end.completion.pop(into: &received)
      received.removeAll()
    case 4:
      received.append(Descriptor(segment: UInt32(input.number(UInt8.self))))
      end.free.push(&received)
      received.removeAll()
    case 5:
      // An index, in the queue's control page.
      write(at: 4096 + Int(verb >> 5) * 64, input.number())
    case 6: write(at: 4096 + Int(verb >> 5) * 64, UInt32(input.number(UInt8.self)))
    default: write(at: Int(input.number(UInt16.self)) % (channel.bytes.count - 3), input.number())
    }
  }

  private mutating func push(_ slot: Descriptor) {
    if sent.room == 0 { sent.removeAll() }
    sent.append(slot)
    end.transmit.push(&sent)
  }

  private func write(at offset: Int, _ value: UInt32) {
    volatile_store32(channel.bytes.baseAddress! + (offset & ~3), value)
  }
}

/// A device that is honest, and asks of its host that it is.
final class DeviceSide: ScriptedDevice {
  static let receiveBytes = 64 * 2048
  static let arenaBytes = 2 * receiveBytes

  /// Packets that come in with the next turn.
  var packets = 0
  /// Whether it has sent what it was given.
  var completes = false
  private(set) var posted: [Descriptor] = []
  private var held = Set<UInt32>()
  var underWay: [UInt16] = []

  func post(_ burst: inout Burst) {
    for index in 0..<burst.count {
      let slot = burst[index]
      require(slot.position + UInt64(slot.length) <= UInt64(Self.receiveBytes), "posted outside")
      require(held.insert(slot.segment).inserted, "segment \(slot.segment) is posted twice")
      posted.append(slot)
    }
    burst.removeAll()
  }

  func receive(into burst: inout Burst) {
    while packets > 0, burst.room > 0, let slot = posted.popLast() {
      packets -= 1
      held.remove(slot.segment)
      burst.append(
        Descriptor(segment: slot.segment, offset: slot.offset, length: 60 + UInt32(packets)))
    }
    packets = 0
  }

  func transmit(_ burst: inout Burst) {
    var end = 0
    for index in 0..<burst.count {
      let slot = burst[index]
      let known = Descriptor.Flags([.more, .offload])
      require(slot.flags.subtracting(known).rawValue == 0, "flags \(slot.flags.rawValue)")
      if slot.flags.contains(.offload) {
        require(Offload(slot) != nil, "metadata that means nothing")
      } else {
        let last = slot.position + UInt64(slot.length)
        require(slot.length > 0, "an empty piece")
        require(
          slot.position >= UInt64(Self.receiveBytes) && last <= UInt64(Self.arenaBytes),
          "\(slot.length) bytes at \(slot.position) are sent, which are not the instance's")
      }
      if !slot.flags.contains(.more) {
        underWay.append(burst[end].tag)
        end = index + 1
      }
    }
    burst.removeFirst(end)
  }
}

/// What a target plays a device with.
protocol ScriptedDevice: AnyObject {
  func post(_ burst: inout Burst)
  func receive(into burst: inout Burst)
  func transmit(_ burst: inout Burst)
  /// Segments that it can fill.
  var posted: [Descriptor] { get }
  /// Tags of packets that it has not done with.
  var underWay: [UInt16] { get set }
  /// Whether it gets done with packets.
  var completes: Bool { get }
}

extension ScriptedDevice {
  func complete(into burst: inout Burst) {
    while completes, burst.room > 0, let tag = underWay.popLast() {
      burst.append(Descriptor(segment: 0, tag: tag))
    }
  }

  var room: Int { 48 - min(48, posted.count) }
}

struct ScriptedPair<Device: ScriptedDevice>: NetworkQueuePair {
  let device: Device
  func postReceive(_ burst: inout Burst) { device.post(&burst) }
  func receive(into burst: inout Burst) { device.receive(into: &burst) }
  func transmit(_ burst: inout Burst) { device.transmit(&burst) }
  func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission { .admitted }
  func completeTransmit(into burst: inout Burst) { device.complete(into: &burst) }
  var receiveRoom: Int { device.room }
  func armInterrupts(transmit: Bool) -> Bool { true }
  func disarmInterrupts() {}
  func takeBack(segments: inout Burst, packets: inout Burst) {}
  var statistics: QueueStatistics { QueueStatistics() }
}
