/// An entry of the capability list in configuration space (PCI Local Bus 3.0, 6.7).
public struct PCICapability: Sendable, Equatable {
  /// Message-signalled interrupts (6.8.1).
  public static let msi: UInt8 = 0x05
  /// What the vendor defines; virtio's structures are such (virtio 1.2, 4.1.4).
  public static let vendorSpecific: UInt8 = 0x09
  /// Message-signalled interrupts with a table of vectors (6.8.2).
  public static let msix: UInt8 = 0x11

  /// The kind of capability.
  public var identifier: UInt8
  /// Where it begins in configuration space.
  public var offset: Int
}

extension PCIFunction {
  /// The vendor id, at offset 0 of configuration space.
  public var vendor: UInt16 {
    get throws(PCIError) { UInt16(truncatingIfNeeded: try readConfiguration(at: 0, width: .word)) }
  }

  /// The device id, at offset 2 of configuration space.
  public var device: UInt16 {
    get throws(PCIError) { UInt16(truncatingIfNeeded: try readConfiguration(at: 2, width: .word)) }
  }

  /// Walks the capability list. A list that loops, or an entry that lies in the header or across the end of the first
  /// 256 bytes, is refused.
  /// - Throws: ``PCIError/malformedCapability(at:reason:)``, or why configuration space cannot be read.
  public func capabilities() throws(PCIError) -> [PCICapability] {
    let hasList: UInt32 = 1 << 4
    guard try readConfiguration(at: 0x06, width: .word) & hasList != 0 else { return [] }
    var result: [PCICapability] = []
    result.reserveCapacity(8)
    // The lowest two bits are reserved and must be masked.
    var offset = Int(try readConfiguration(at: 0x34, width: .byte)) & 0xfc
    while offset != 0 {
      guard offset >= 0x40 else {
        throw .malformedCapability(at: offset, reason: "lies in the header")
      }
      guard !result.contains(where: { $0.offset == offset }) else {
        throw .malformedCapability(at: offset, reason: "the list comes back to it")
      }
      let identifier = UInt8(
        truncatingIfNeeded: try readConfiguration(at: offset, width: .byte))
      result.append(PCICapability(identifier: identifier, offset: offset))
      offset = Int(try readConfiguration(at: offset + 1, width: .byte)) & 0xfc
    }
    return result
  }

  /// Turns memory accesses to the function on, and lets it do DMA or not (PCI Local Bus 3.0, 6.2.2). A
  /// message-signalled interrupt is DMA as well.
  public func setBusMaster(_ on: Bool) throws(PCIError) {
    let memory: UInt32 = 1 << 1
    let master: UInt32 = 1 << 2
    let command = try readConfiguration(at: 0x04, width: .word)
    let wanted = on ? command | memory | master : (command | memory) & ~master
    if wanted != command { try writeConfiguration(wanted, at: 0x04, width: .word) }
  }
}
