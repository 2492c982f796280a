import CLinux
import Channel
import Glibc
import Memory
import Steering
import Testing

@testable import Host

/// A stage that a test plays: it takes packets, looks at them and changes them in the host's arena, and gives them back.
final class PlayedStage {
  let memory: ChannelMemory
  let hostEnd: Int32
  let doorbell: Int32
  let ring = eventfd(0, Int32(EFD_NONBLOCK))
  let window: UnsafeMutableRawPointer
  var end: InstanceEnd
  var burst = Burst(capacity: 256)
  /// Packets that it has.
  var packets: [StagedPacket] = []
  var spares: [StagedPacket] = []

  init(_ bench: SharedBench) throws {
    memory = try ChannelMemory(layout: try #require(ChannelLayout(queues: 1, slots: 4096)))
    (hostEnd, doorbell) = try CommandDoorbell.pair()
    end = InstanceEnd(memory, queue: 0, hostDoorbell: ring)
    window = bench.windowAddress
  }

  deinit { for descriptor in [hostEnd, doorbell, ring] { close(descriptor) } }

  func take() throws {
    try end.receive.pop(into: &burst)
    for first in stride(from: 0, to: burst.count, by: StagedPacket.slots) {
      let packet = try #require(StagedPacket(burst.start + first))
      if packet.way == .none { spares.append(packet) } else { packets.append(packet) }
    }
    burst.removeAll()
  }

  func frame(_ packet: StagedPacket) -> [UInt8] {
    Array(
      UnsafeRawBufferPointer(start: window + Int(packet.position), count: Int(packet.byteCount)))
  }

  func write(_ bytes: [UInt8], _ packet: inout StagedPacket) {
    (window + Int(packet.position)).copyMemory(from: bytes, byteCount: bytes.count)
    packet.byteCount = UInt32(bytes.count)
  }

  func give(_ packets: [StagedPacket]) {
    for packet in packets { packet.append(to: &burst) }
    end.transmit.push(&burst)
    end.doorbell.ring()
    burst.removeAll()
  }

  func give(_ packet: StagedPacket, way: StagedPacket.Way? = nil) {
    var packet = packet
    packet.way = way ?? packet.way
    give([packet])
  }

  /// Takes what has come and gives all of it back as it is.
  func pass() throws {
    try take()
    give(packets)
    packets = []
  }
}
