import CLinux
import Driver
import E1000e
import FuzzHarness

@testable import E1000eDevice

/// A driver for an Ethernet controller, and a controller that does what the input says.
let e1000e = FuzzTarget("e1000e") { input in
  var input = input
  let isExtended = input.number(UInt8.self) & 1 == 0
  (isExtended ? E1000eRigs.extended : E1000eRigs.legacy).run(&input)
}

/// One for each format of receive descriptors.
private enum E1000eRigs {
  nonisolated(unsafe) static let extended = make(isExtended: true)
  nonisolated(unsafe) static let legacy = make(isExtended: false)

  private static func make(isExtended: Bool) -> DriverRig<E1000e> {
    let wire = DeviceWire(carriesOffloads: false)
    var options = E1000eDevice.Options()
    options.hasExtendedDescriptors = isExtended
    let device = E1000eDevice(wire: wire, options: options)
    return DriverRig<E1000e>(
      device, E1000eMisbehaviour(device, isExtended: isExtended), wire: wire,
      ownVerb: { _, _ throws(DriverError) in })
  }
}

/// What a hostile controller writes into its rings.
private final class E1000eMisbehaviour: Misbehaviour {
  private let device: E1000eDevice
  private let isExtended: Bool

  init(_ device: E1000eDevice, isExtended: Bool) {
    self.device = device
    self.isExtended = isExtended
  }

  func clearComplaints() {
    device.clearViolations()
    device.endFaults()
  }

  func act(_ verb: Int, _ number: Int, _ input: inout FuzzInput) {
    switch verb {
    case 0: receive(1, number, length: UInt16(input.number(UInt8.self)) * 9, errors: 0)
    case 1: receive(1 + number, 2, length: UInt16(input.number(UInt8.self)) * 9, errors: 0)
    case 2: receive(1, number, length: input.number(), errors: input.number())
    case 3: write(device.receiveRings[0], ahead: number, input.number())
    case 4, 5:
      // The last descriptor of a packet, or another.
      let ring = device.transmitQueues[0].ring
      for ahead in 0...number { write(ring, ahead: ahead, 1 << 32) }
      for _ in 0...number where ring.count > 0 { device.transmitQueues[0].ring.advance() }
    case 6: write(device.transmitQueues[0].ring, ahead: number, input.number())
    case 7:
      let malformations = Malformation.allCases
      let kind = malformations[Int(input.number(UInt8.self)) % malformations.count]
      if number & 1 == 0 {
        device.malformReceive(kind, next: 1 + number)
      } else {
        device.malformTransmit(kind, next: 1 + number)
      }
    case 8: device.damage(nextFrames: number)
    case 9: device.isStalled.toggle()
    case 10: device.isGone.toggle()
    case 11: device.storm(interruptsPerStep: number)
    case 12: device.loseInterrupts(number)
    case 13: device.receiveRings[0].head = Int(input.number(UInt8.self))
    default: break
    }
  }

  /// Descriptors that look filled, of a packet that ends with the last of them, or does not.
  private func receive(_ count: Int, _ number: Int, length: UInt16, errors: UInt8) {
    for index in 0..<count {
      let ends = number & 1 == 0 && index == count - 1
      let status: UInt64 = ends ? 3 | UInt64(number >> 1) << 4 : 1
      let word =
        isExtended
        ? status | UInt64(errors) << 24 | UInt64(length) << 32
        : status << 32 | UInt64(errors) << 40 | UInt64(length)
      write(device.receiveRings[0], ahead: 0, word)
      if device.receiveRings[0].count > 0 { device.receiveRings[0].advance() }
    }
  }

  /// The second half of a descriptor.
  private func write(_ ring: DescriptorRing, ahead: Int, _ word: UInt64) {
    if ring.count == 0 { return }
    let index = (ring.head + ahead) % ring.count
    guard let memory = device.iommu.pointer(ring.address(of: index), byteCount: 16, .write) else {
      return
    }
    release_store64(memory + 8, word)
  }
}
