import Driver
import Memory
import VirtioNet

/// The driver and the ledger receive: used ring, record, virtio_net_hdr, refill. A caller reads 8 bytes of each packet
/// and gives it back.
public struct ReceiveLoop: PathLoop, ~Copyable {
  private var device: RawDevice
  private var pair: VirtioNetQueuePair
  private var ledger: SegmentLedger
  private var posts = Burst(capacity: 64)
  private var received = Burst(capacity: 128)
  /// Of the words that were read, so that they are.
  public private(set) var sum: UInt64 = 0

  public init(_ format: RingFormat) throws {
    device = try RawDevice(format)
    pair = device.takeQueuePair()
    ledger = SegmentLedger(
      firstUnit: 0, byteCount: RawDevice.partBytes, headerBytes: VirtioNet.receiveHeaderBytes)
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var packets = 0
    try refill()
    for _ in 0..<bursts {
      device.fill(Self.burstSize)
      try pair.receive(into: &received)
      ledger.give(received)
      for index in 0..<received.count {
        sum &+= (device.arena.address + Int(received[index].position)).loadUnaligned(
          as: UInt64.self)
      }
      packets += received.count
      try ledger.takeBack(&received)
      try refill()
    }
    return packets
  }

  private mutating func refill() throws(DriverError) {
    ledger.lend(upTo: min(pair.receiveRoom, posts.capacity), into: &posts)
    try pair.postReceive(&posts)
    for index in 0..<posts.count { ledger.reclaim(posts[index].segment) }
    posts.removeAll()
  }
}

/// The driver sends packets of 64 bytes in one piece: virtio_net_hdr, chain, record, completion.
public struct TransmitLoop: PathLoop, ~Copyable {
  private var device: RawDevice
  private var pair: VirtioNetQueuePair
  private var sending = Burst(capacity: 64)
  private var completed = Burst(capacity: 64)

  public init(_ format: RingFormat) throws {
    device = try RawDevice(format)
    pair = device.takeQueuePair()
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var packets = 0
    for _ in 0..<bursts {
      sending.appendOwnPackets(Self.burstSize)
      try pair.transmit(&sending)
      device.drain(Self.burstSize)
      try pair.completeTransmit(into: &completed)
      let done = completed.start
      for index in 0..<completed.count {
        precondition((done + index).rest &>> 48 < UInt64(Self.burstSize))
      }
      packets += completed.count
      completed.removeAll()
    }
    return packets
  }
}

extension Burst {
  /// Appends packets of 64 bytes in the instance's part of the arena; there is room for them.
  @inline(__always)
  mutating func appendOwnPackets(_ count: Int) {
    let slots = end
    for tag in 0..<UInt64(count) {
      (slots + Int(tag)).store(
        place: UInt64(RawDevice.partBytes >> 10) &+ tag &* 2, rest: 64 | tag &<< 48)
    }
    append(written: count)
  }
}
