import Channel
import Driver
import Host
import Memory
import Stacks
import VirtioNet

/// Another packet of the same bytes, and its end: a clone that shares them, or a copy.
public struct CloneLoop: PathLoop, ~Copyable {
  private let arena: Arena
  private var pool: PacketPool
  private let packets: UnsafeMutablePointer<Packet>
  private let byteCount: Int
  private let copies: Bool
  /// Of the words that were read, so that they are.
  public private(set) var sum: UInt64 = 0

  /// - Parameters:
  ///   - byteCount: of a packet, at least 8.
  ///   - copies: whether bytes are copied in place of shared.
  public init(byteCount: Int, copies: Bool) throws {
    arena = try Arena.withBestPages(byteCount: 32 << 20, name: "martlet-bench-clone")
    pool = PacketPool(SegmentPool(arena: arena.address, range: 0..<arena.byteCount))
    self.byteCount = byteCount
    self.copies = copies
    packets = .allocate(capacity: Self.burstSize)
    for index in 0..<Self.burstSize {
      guard let packet = pool.make(byteCount: byteCount) else { preconditionFailure() }
      (packets + index).initialize(to: packet)
    }
  }

  deinit {
    packets.deinitialize(count: Self.burstSize)
    packets.deallocate()
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    for _ in 0..<bursts {
      for index in 0..<Self.burstSize {
        if copies {
          guard var copy = pool.make(byteCount: byteCount) else {
            throw UnsupportedLoop(description: "the pool is exhausted")
          }
          // Invariant: the packet is there until deinit.
          let source = UnsafeRawBufferPointer(
            start: arena.address + Int(packets[index].piece(0).position), count: byteCount)
          copy.write(source.bytes, at: 0)
          sum &+= copy.bytes(ofPiece: 0).unsafeLoad(as: UInt64.self)
        } else {
          let clone = packets[index].clone()
          sum &+= clone.bytes(ofPiece: 0).unsafeLoad(as: UInt64.self)
        }
      }
    }
    return bursts &* Self.burstSize
  }
}

/// As ``HostTransmitLoop``, with an instance that has a tag for each unit that it sends: so many packets at once.
public struct HostAggregateLoop: PathLoop, ~Copyable {
  private var host: HostOnMemory
  private var tags = PacketTags<UInt32>(count: 256)
  private let packets: Int

  /// - Parameter packets: of an aggregate; 1 for single packets.
  public init(packets: Int) throws {
    host = try HostOnMemory(.split)
    self.packets = packets
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var done = 0
    for _ in 0..<bursts {
      var number: UInt32 = 0
      while number < UInt32(Self.burstSize) {
        guard let tag = tags.next else { throw UnsupportedLoop(description: "no tag is free") }
        let first = host.burst.count
        let unit = UInt32(RawDevice.partBytes >> 10) &+ number &* 2
        for index in 0..<UInt32(packets) {
          host.burst.append(Descriptor(segment: unit &+ index &* 2, length: 64, tag: tag))
        }
        if packets > 1 { host.burst.joinPackets(from: first) }
        tags.take(for: unit)
        number &+= UInt32(packets)
      }
      host.instance.transmit.push(&host.burst)
      _ = try host.path.turn()
      host.device.drain(Self.burstSize)
      _ = try host.path.turn()
      try host.instance.completion.pop(into: &host.burst)
      for index in 0..<host.burst.count {
        if tags.finish(host.burst[index].tag) != nil { done &+= packets }
      }
      host.burst.removeAll()
    }
    return done
  }
}

/// Packets that wait in a queue, of which some are taken back before they are sent; all of them are changed as they come in,
/// or those that leave when they do.
public struct LastMomentLoop<Transform: TransmitTransform & ~Copyable>: PathLoop, ~Copyable {
  private var device: RawDevice
  private var pair: TransformingQueuePair<VirtioNetQueuePair, Transform>
  private var queue = TransmitQueue(slots: 128)
  private var burst = Burst(capacity: 128)
  private let arena: DMARange
  private let byteCount: Int
  private let request: Offload
  private let keptOf4: Int
  private let isEager: Bool

  /// - Parameters:
  ///   - transform: what is done to packets.
  ///   - request: what they ask for, where it is done late.
  ///   - byteCount: of a packet, up to 2048.
  ///   - cancelledOf4: how many of four packets are taken back.
  ///   - isEager: whether all are changed at once.
  public init(
    _ transform: consuming Transform, request: Offload, byteCount: Int, cancelledOf4: Int,
    isEager: Bool
  ) throws {
    device = try RawDevice(.split)
    arena = DMARange(address: device.arena.address, iova: 0, byteCount: RawDevice.arenaBytes)
    pair = TransformingQueuePair(
      device.takeQueuePair(), transform, arena: arena, isNeeded: !isEager)
    self.byteCount = byteCount
    self.request = request
    keptOf4 = 4 - cancelledOf4
    self.isEager = isEager
  }

  /// - Returns: packets that were made, sent or not.
  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    let asks = request.needsChecksum && !isEager
    for _ in 0..<bursts {
      for tag in 0..<UInt16(Self.burstSize) {
        if asks {
          var offload = request
          offload.tag = tag
          burst.append(offload.slot)
        }
        burst.append(
          Descriptor(
            segment: UInt32(RawDevice.partBytes >> 10) &+ UInt32(tag) &* 2,
            length: UInt32(byteCount), tag: tag))
        if isEager {
          let at = burst.count &- 1
          guard
            let packet = TransmitPacket(burst, from: at, through: at, request: request, in: arena),
            pair.transform.transform(packet)
          else { throw UnsupportedLoop(description: "a packet cannot be changed") }
        }
      }
      queue.append(&burst)
      for tag in 0..<UInt16(Self.burstSize) where Int(tag & 3) >= keptOf4 { _ = queue.cancel(tag) }
      try queue.send(on: &pair)
      device.drain(Self.burstSize)
      try pair.completeTransmit(into: &burst)
      if burst.count != Self.burstSize / 4 &* keptOf4 {
        throw UnsupportedLoop(description: "\(burst.count) packets were sent")
      }
      burst.removeAll()
    }
    return bursts &* Self.burstSize
  }
}
