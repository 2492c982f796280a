import Driver
import Glibc
import Memory
import PCI
import Testing
import VFIO
import VhostUser
import VirtioNet

/// A front-end in this process: memory, a connection, and the driver on it.
final class FrontEnd {
  let rings: Arena
  let arena: Arena
  let access: VhostUserAccess
  let function: VhostUserFunction
  private let pairs: Int
  private var ledger = SegmentLedger(firstUnit: 0, byteCount: FrontEnd.byteCount / 2)
  static let ringsIOVA: UInt64 = 0x10_0000
  static let arenaIOVA: UInt64 = 0x4000_0000
  static let byteCount = 1 << 20

  init(path: String, queuePairs: Int = 1, timeout: Int = 1000) throws {
    rings = try Arena(byteCount: Self.byteCount, pageSize: .ordinary, name: "rings")
    arena = try Arena(byteCount: Self.byteCount, pageSize: .ordinary, name: "arena")
    pairs = queuePairs
    access = try VhostUserAccess(path: path, timeout: timeout)
    let half = UInt64(Self.byteCount / 2)
    try access.mapDMA(
      DMAMemory(
        address: rings.address, descriptor: rings.descriptor, offset: 0,
        byteCount: UInt64(Self.byteCount)), iova: Self.ringsIOVA, rights: [.read, .write])
    // Two maps of one memory, which are one region.
    for part in 0..<2 {
      let offset = UInt64(part) * half
      try access.mapDMA(
        DMAMemory(
          address: arena.address + Int(offset), descriptor: arena.descriptor, offset: offset,
          byteCount: half), iova: Self.arenaIOVA + offset, rights: .read)
    }
    function = try VhostUserFunction(
      negotiated: access.descriptor, name: access.name,
      doorbells: VhostUserDoorbells(queuePairs: queuePairs), timeout: timeout)
  }

  /// A driver that holds no segment yet.
  func makeDriver(
    ringSize: Int = 256, interrupts: InterruptPlan = .none
  ) throws(DriverError) -> VirtioNet {
    ledger = SegmentLedger(firstUnit: 0, byteCount: Self.byteCount / 2)
    return try VirtioNet(
      DriverResources(
        function: function,
        rings: DMAZone(
          DMARange(address: rings.address, iova: Self.ringsIOVA, byteCount: Self.byteCount)),
        arena: DMARange(address: arena.address, iova: Self.arenaIOVA, byteCount: Self.byteCount),
        queuePairs: pairs, ringSize: ringSize, interrupts: interrupts))
  }

  /// Sends `count` frames each way, one by one, and compares every byte.
  func exchange(_ count: Int, _ pair: inout VirtioNetQueuePair, wire: Int32) throws {
    var posts = Burst(capacity: 64)
    var received = Burst(capacity: 64)
    var sending = Burst(capacity: 64)
    var completed = Burst(capacity: 64)
    var (seen, done, back) = (0, 0, 0)
    var buffer = [UInt8](repeating: 0, count: 2048)
    for number in 0..<count {
      ledger.lend(upTo: min(64, pair.receiveRoom), into: &posts)
      try pair.postReceive(&posts)
      let bytes = Self.frame(number)
      #expect(send(wire, bytes, bytes.count, 0) == bytes.count)
      (arena.address + Self.byteCount / 2).copyMemory(from: bytes, byteCount: bytes.count)
      sending.append(
        Descriptor(
          segment: UInt32(Self.byteCount / 2 / 1024), length: UInt32(bytes.count),
          tag: UInt16(number)))
      try pair.transmit(&sending)
      for _ in 0..<100_000 where seen <= number || done <= number {
        try pair.receive(into: &received)
        for index in 0..<received.count {
          let slot = received[index]
          let data = UnsafeRawBufferPointer(
            start: arena.address + Int(slot.position), count: Int(slot.length))
          #expect(Array(data) == Self.frame(seen))
          seen += 1
          ledger.give(slot.segment)
          try ledger.takeBack(slot.segment)
        }
        received.removeAll()
        try pair.completeTransmit(into: &completed)
        done += completed.count
        completed.removeAll()
        if seen <= number || done <= number { usleep(20) }
      }
      let length = recv(wire, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if length == bytes.count && Array(buffer[0..<length]) == bytes { back += 1 }
    }
    #expect(seen == count && done == count && back == count)
  }

  static func frame(_ number: Int) -> [UInt8] {
    [UInt8](repeating: 0xff, count: 6)
      + (6..<60 + number % 1400).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ number) }
  }
}
