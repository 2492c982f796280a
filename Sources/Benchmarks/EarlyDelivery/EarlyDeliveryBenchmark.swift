import Driver
import EmulatedPCI
import Memory
import PCI
import RadioLink
import RadioLinkDevice
import Wire

/// What early delivery is worth on a link whose link layer repeats what is lost: latency in virtual time and memory,
/// beside delivery in link order, on the same packets and the same losses.
public struct EarlyDeliveryBenchmark: Sendable {
  /// Probabilities that a transmission of a PDU is lost.
  public var losses: [Double]
  public var flows: Int
  public var packets: Int
  public var seed: UInt64

  public init(losses: [Double], flows: Int, packets: Int, seed: UInt64) {
    self.losses = losses
    self.flows = flows
    self.packets = packets
    self.seed = seed
  }

  /// One run. Latency is from the time at which a packet enters the link to that at which the driver hands it up.
  public struct Result: Sendable {
    public var loss: Double
    public var delivery: PacketDelivery
    /// Packets none of whose own PDUs was lost: not hit.
    public var packetsNotHit: Int
    /// Of the packets not hit, in nanoseconds.
    public var median: UInt64
    public var percentile99: UInt64
    /// Of those that were hit, in nanoseconds; 0 where there is none.
    public var percentile99Hit: UInt64
    public var peakBytes: Int
    public var peakSegments: Int
    /// Packets that came up after a later one of their own flow.
    public var overtaken: Int
    public var lostPDUs: UInt64
  }

  public static let deliveries: [PacketDelivery] = [.linkOrder, .early, .earlyByFlow]

  /// The results of each loss and each way of delivery, in this order.
  /// - Throws: ``BenchmarkError`` where a run was not what it should be, and what the driver throws.
  public func run() throws -> [Result] {
    var results: [Result] = []
    for loss in losses {
      var hit: Set<Int>?
      for delivery in Self.deliveries {
        let run = try Run(self, loss: loss, delivery: delivery)
        if let hit, hit != run.hitPackets { throw BenchmarkError.differentLosses }
        hit = run.hitPackets
        results.append(run.result)
      }
    }
    return results
  }

  /// The packets of all flows, by the time at which they enter: about 60 % of what the link can carry.
  func makeTraffic() -> [(time: UInt64, bytes: [UInt8])] {
    var random = SplitMix64(state: seed)
    var time: UInt64 = 0
    var sequence = [Int](repeating: 0, count: flows)
    return (0..<packets).map { number in
      let flow = Int(random.next() % UInt64(flows))
      let sizes = [60, 60, 120, 576, 1100, 1514, 1514]
      let byteCount = sizes[Int(random.next() % UInt64(sizes.count))]
      // A mean of 95 us: 706 bytes on average are 59 Mbit/s.
      time += random.next() % 190_000
      let bytes = makePacket(flow, number, sequence[flow], byteCount)
      sequence[flow] += 1
      return (time, bytes)
    }
  }

  /// An Ethernet frame with IPv4 and UDP whose payload begins with the packet's number and its number in the flow.
  private func makePacket(_ flow: Int, _ number: Int, _ inFlow: Int, _ byteCount: Int) -> [UInt8] {
    func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 255), UInt8(value & 255)] }
    func long(_ value: Int) -> [UInt8] { word(value >> 16) + word(value & 0xffff) }
    var bytes: [UInt8] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]
    bytes += [0x45, 0] + word(byteCount - 14) + [0, 0, 0, 0, 64, 17, 0, 0]
    bytes += [10, 0, 0, 1, 10, 0, 0, 2] + word(10_000 + flow) + word(53) + word(byteCount - 34)
    bytes += [0, 0] + long(number) + long(inFlow)
    return bytes + [UInt8](repeating: UInt8(number & 255), count: byteCount - bytes.count)
  }
}

public enum BenchmarkError: Error, CustomStringConvertible {
  /// The runs that are compared did not lose the same.
  case differentLosses
  case missingPackets(Int)
  case violations(String)

  public var description: String {
    switch self {
    case .differentLosses: "the runs did not lose the same PDUs"
    case .missingPackets(let count): "\(count) packets did not come up"
    case .violations(let first): "the driver broke the device's rules: \(first)"
    }
  }
}

/// Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
private struct SplitMix64 {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}
