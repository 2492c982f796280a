import Driver
import Memory
import PCI

/// How a driver differs from the recorded one.
protocol Alteration {
  static var ringSize: Int? { get }
  static var reversesPosts: Bool { get }
}

enum OtherRingSize: Alteration {
  static let ringSize: Int? = 32
  static let reversesPosts = false
}

enum OtherOrder: Alteration {
  static let ringSize: Int? = nil
  static let reversesPosts = true
}

/// A driver that does something else than it did when it was recorded.
struct Altered<D: NetworkDriver & ~Copyable, A: Alteration>: NetworkDriver, ~Copyable {
  static var name: String { D.name }
  static var matches: [PCIMatch] { D.matches }
  private var driver: D

  init(_ resources: consuming DriverResources) throws(DriverError) {
    let (function, arena) = (resources.function, resources.arena)
    let (mtu, interrupts) = (resources.mtu, resources.interrupts)
    let ringSize = A.ringSize ?? resources.ringSize
    let requiresPlatformAccess = resources.requiresPlatformAccess
    driver = try D(
      DriverResources(
        function: function, rings: resources.takeRings(), arena: arena, ringSize: ringSize,
        mtu: mtu, interrupts: interrupts, requiresPlatformAccess: requiresPlatformAccess))
  }

  var interface: NetworkInterface { driver.interface }
  mutating func takeQueuePair(_ index: Int) -> AlteredPair<D.QueuePair, A> {
    AlteredPair(pair: driver.takeQueuePair(index))
  }
  mutating func start() throws(DriverError) { try driver.start() }
  mutating func stop() { driver.stop() }
  mutating func handleConfigurationChange() throws(DriverError) -> Bool {
    try driver.handleConfigurationChange()
  }
  mutating func setPromiscuous(_ on: Bool) throws(DriverError) { try driver.setPromiscuous(on) }
  mutating func setFilter(
    unicast: [MACAddress], multicast: [MACAddress]?
  ) throws(DriverError) { try driver.setFilter(unicast: unicast, multicast: multicast) }
  mutating func setReceiveCoalescing(
    packets: UInt32, microseconds: UInt32
  ) throws(DriverError) {
    try driver.setReceiveCoalescing(packets: packets, microseconds: microseconds)
  }
}

struct AlteredPair<Pair: NetworkQueuePair & ~Copyable, A: Alteration>: NetworkQueuePair, ~Copyable {
  var pair: Pair

  mutating func postReceive(_ burst: inout Burst) throws(DriverError) {
    if A.reversesPosts {
      for index in 0..<burst.count / 2 {
        let other = burst.count - 1 - index
        (burst[index], burst[other]) = (burst[other], burst[index])
      }
    }
    try pair.postReceive(&burst)
  }
  mutating func receive(into burst: inout Burst) throws(DriverError) {
    try pair.receive(into: &burst)
  }
  mutating func transmit(_ burst: inout Burst) throws(DriverError) { try pair.transmit(&burst) }
  mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    try pair.completeTransmit(into: &burst)
  }
  mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission {
    pair.admission(of: burst, from: first, through: last, behind: &places)
  }
  var receiveRoom: Int { pair.receiveRoom }
  mutating func armInterrupts(transmit: Bool) -> Bool { pair.armInterrupts(transmit: transmit) }
  mutating func disarmInterrupts() { pair.disarmInterrupts() }
  mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    pair.takeBack(segments: &segments, packets: &packets)
  }
  var statistics: QueueStatistics { pair.statistics }
}
