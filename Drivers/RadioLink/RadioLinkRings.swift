import Driver
import Memory
import PCI
import Rings

/// What the device says of itself (RadioLink.md, section 2), checked.
struct RadioLinkLimits {
  let macAddress: MACAddress
  let mtu: Int
  let payloadBytes: Int
  let window: Int
  let ringLimit: Int

  init(_ registers: RegisterWindow, name: String) throws(DriverError) {
    func refuse(_ what: String, _ value: Int) -> DriverError {
      .unsupported("\(name) has \(what) of \(value)")
    }
    let low = registers.read32(at: RadioLinkRegister.addressLow)
    let high = registers.read32(at: RadioLinkRegister.addressHigh)
    func byte(_ word: UInt32, _ index: UInt32) -> UInt8 {
      UInt8(truncatingIfNeeded: word >> (8 * index))
    }
    macAddress = MACAddress(
      (byte(low, 0), byte(low, 1), byte(low, 2), byte(low, 3), byte(high, 0), byte(high, 1)))
    guard !macAddress.isMulticast, !macAddress.isZero else {
      throw .unsupported("\(name) has the address \(macAddress), which no device may have")
    }
    mtu = Int(registers.read32(at: RadioLinkRegister.mtu))
    guard (68...9000).contains(mtu) else { throw refuse("an MTU", mtu) }
    payloadBytes = Int(registers.read32(at: RadioLinkRegister.payloadBytes))
    guard (256...1536).contains(payloadBytes) else { throw refuse("PDU_BYTES", payloadBytes) }
    window = Int(registers.read32(at: RadioLinkRegister.window))
    guard (16...RadioLinkSequence.largestWindow).contains(window), window & (window - 1) == 0 else {
      throw refuse("a WINDOW", window)
    }
    ringLimit = Int(registers.read32(at: RadioLinkRegister.ringLimit))
    guard ringLimit >= RadioLinkLayout.smallestRing, ringLimit & (ringLimit - 1) == 0 else {
      throw refuse("a RING_LIMIT", ringLimit)
    }
  }
}

/// The memory that the driver and the device share.
struct RadioLinkRings {
  let receive: DMARange
  let completions: DMARange
  let transmit: DMARange
  let indexes: DMARange
  let receiveSize: Int
  let transmitSize: Int
  var receiveMask: UInt32 { UInt32(receiveSize - 1) }
  var transmitMask: UInt32 { UInt32(transmitSize - 1) }

  init(_ zone: inout DMAZone, size wanted: Int, limit: Int) throws(DriverError) {
    let size = max(RadioLinkLayout.smallestRing, min(wanted, min(limit, 1 << 15)))
    func memory(_ byteCount: Int) throws(DriverError) -> DMARange {
      guard let range = zone.allocate(byteCount: byteCount, alignment: 64) else {
        throw .outOfRingMemory(needed: byteCount)
      }
      return range
    }
    receive = try memory(size * RadioLinkLayout.descriptorBytes)
    completions = try memory(size * RadioLinkLayout.completionBytes)
    transmit = try memory(size * RadioLinkLayout.descriptorBytes)
    indexes = try memory(RadioLinkLayout.indexBytes)
    receiveSize = size
    transmitSize = size
  }

  /// Tells the device where everything is, before ENABLE.
  func write(to registers: RegisterWindow) {
    let places = [
      (RadioLinkRegister.receiveRing, receive), (RadioLinkRegister.completionRing, completions),
      (RadioLinkRegister.transmitRing, transmit), (RadioLinkRegister.indexes, indexes),
    ]
    for (offset, memory) in places {
      registers.write32(UInt32(truncatingIfNeeded: memory.iova), at: offset)
      registers.write32(UInt32(truncatingIfNeeded: memory.iova >> 32), at: offset + 4)
    }
    registers.write32(UInt32(receiveSize), at: RadioLinkRegister.receiveSize)
    registers.write32(UInt32(transmitSize), at: RadioLinkRegister.transmitSize)
  }
}
