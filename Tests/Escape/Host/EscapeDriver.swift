import Driver
import EscapeAttempts
import Glibc
import Memory
import PCI

/// A driver that has been taken over: it moves no packet, and tries to get out of its driver host. Which attempt it makes is
/// the feature that it is told to leave alone: NAME in the loop of its queue, `start:NAME` while it sets up its device.
struct EscapeDriver: NetworkDriver, ~Copyable {
  static let name = "escape"
  static let matches = [PCIMatch(vendor: 0x1af4, device: 0x1041)]
  static let optionalFeatures =
    EscapeAttempt.names + EscapeAttempt.names.map { EscapeAttempt.atStart + $0 }

  private let attempt: EscapeAttempt?

  init(_ resources: consuming DriverResources) throws(DriverError) {
    attempt = resources.without.first.map(EscapeAttempt.init)
  }

  var interface: NetworkInterface {
    NetworkInterface(
      macAddress: MACAddress((0x52, 0x54, 0, 0, 0, 1)), offloads: .transmitChecksum)
  }

  mutating func takeQueuePair(_ index: Int) -> EscapeQueuePair { EscapeQueuePair(attempt) }
  mutating func start() throws(DriverError) {
    if let attempt, attempt.isAtStart { try attempt.make() }
  }
  mutating func stop() {}
  mutating func handleConfigurationChange() throws(DriverError) -> Bool { false }
  mutating func setPromiscuous(_ on: Bool) throws(DriverError) {}
  mutating func setFilter(unicast: [MACAddress], multicast: [MACAddress]?) throws(DriverError) {}
  mutating func setReceiveCoalescing(packets: UInt32, microseconds: UInt32) throws(DriverError) {}
}

/// Makes the attempt when it is first asked for packets.
struct EscapeQueuePair: NetworkQueuePair, ~Copyable {
  private let attempt: EscapeAttempt?
  init(_ attempt: EscapeAttempt?) { self.attempt = attempt }

  mutating func receive(into burst: inout Burst) throws(DriverError) {
    if let attempt, !attempt.isAtStart { try attempt.make() }
  }

  mutating func postReceive(_ burst: inout Burst) throws(DriverError) {}
  mutating func transmit(_ burst: inout Burst) throws(DriverError) {}
  mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission { .noRoom }
  mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {}
  var receiveRoom: Int { 0 }
  mutating func armInterrupts(transmit: Bool) -> Bool { false }
  mutating func disarmInterrupts() {}
  mutating func takeBack(segments: inout Burst, packets: inout Burst) {}
  var statistics: QueueStatistics { QueueStatistics() }
}

struct EscapeAttempt: Sendable {
  static let atStart = "start:"
  static let names: [String] = {
    var names: [String] = []
    while let name = escape_attempt_name(Int32(names.count)) {
      names.append(String(cString: name))
    }
    return names
  }()

  let isAtStart: Bool
  private let index: Int32

  init(_ text: String) {
    isAtStart = text.hasPrefix(Self.atStart)
    let name = isAtStart ? String(text.dropFirst(Self.atStart.count)) : text
    index = Int32(Self.names.firstIndex(of: name) ?? -1)
  }

  /// - Throws: always, where the process still lives: what the kernel said.
  func make() throws(DriverError) {
    let result = escape_attempt(index)
    let outcome =
      result >= 0 ? "DONE (\(result))" : "refused: \(String(cString: strerror(Int32(-result))))"
    throw .unsupported("attempt \(Self.names[Int(index)]) \(outcome)")
  }
}
