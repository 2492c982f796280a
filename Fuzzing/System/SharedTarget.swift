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
  let device = SharedDevice(memory, recipient: { $0 % 3 == 2 ? 98 : $0 % 3 }) { slots, count, _ in
    let sender = memory.check(slots[0])
    for index in 1..<max(1, count) { memory.check(slots[index], of: sender) }
  }
  do throws(ClaimConflict) {
    let table = try DeliveryTable(
      station: SharedMemory.station,
      claims: [(0, .address(SharedMemory.address(0))), (1, .address(SharedMemory.address(1)))],
      attached: 3)
    let forwarding = ForwardingTable(claims: table.rules)
    let mailbox = PathMailbox(changed: channels.bell)
    defer { mailbox.deallocate() }
    var path = memory.path(ScriptedPair(device: device), mailbox, forwarding)
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
    for port in ports { change(PathUpdate(table: forwarding, install: port), mailbox, &path) }
    var hostile = InstanceSide(channels.hostile, transmitStart: SharedMemory.receiveBytes)
    var polite = PoliteInstance(1, channels.polite, memory, isUnchanged: true)
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

extension SharedMemory {
  /// The hostile instance writes a frame into its memory, of which some bytes are anything.
  fileprivate func writeFrame(_ input: inout FuzzInput, _ verb: UInt8) {
    let place = window + Self.base(0) + Self.receiveBytes + Int(verb >> 5) * 1024
    Self.frame(from: 0, to: 99).withUnsafeBytes {
      place.copyMemory(from: $0.baseAddress!, byteCount: $0.count)
    }
    for _ in 0..<Int(verb >> 3 & 3) {
      let offset = Int(input.number(UInt8.self))
      place.storeBytes(of: input.number(), toByteOffset: offset, as: UInt8.self)
    }
  }

  /// The headers lie where only the host writes, and say who sends.
  fileprivate func check(_ headers: Descriptor) -> Int {
    let start = Int(headers.position)
    let end = start + Int(headers.length)
    require(
      start >= SharedMemory.receiveBytes && end <= SharedMemory.arenaBytes,
      "headers at \(start) are not the host's")
    let packet = PacketHeader(frame: window + start, byteCount: Int(headers.length))
    require(packet.sourceStation == SharedMemory.station, "from another station")
    for instance in 0..<2 where packet.source == SharedMemory.address(instance) { return instance }
    require(
      packet.kind == .arp && packet.source.low == 0 || packet.kind == .ipv6,
      "\(packet) is from nobody's address")
    return -1
  }

  /// What follows lies in the sender's own memory, and of a received segment in that alone.
  fileprivate func check(_ piece: Descriptor, of sender: Int) {
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
}
