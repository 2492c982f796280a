/// The 256 bytes of configuration space of an emulated function (PCI Local Bus 3.0, chapter 6): values, and which bits
/// software may write. BAR sizing follows from the mask.
public struct ConfigurationSpace: Sendable {
  public static let byteCount = 256
  private var bytes = [UInt8](repeating: 0, count: byteCount)
  private var writable = [UInt8](repeating: 0, count: byteCount)
  private var initial: [UInt8] = []
  private var lastCapability = 0
  private var nextCapability = 0x40

  public init(vendor: UInt16, device: UInt16, classCode: UInt32, revision: UInt8, subsystem: UInt16)
  {
    set16(0x00, vendor)
    set16(0x02, device)
    bytes[0x08] = revision
    bytes[0x09] = UInt8(truncatingIfNeeded: classCode)
    bytes[0x0a] = UInt8(truncatingIfNeeded: classCode >> 8)
    bytes[0x0b] = UInt8(truncatingIfNeeded: classCode >> 16)
    set16(0x2c, vendor)
    set16(0x2e, subsystem)
    // Command: memory space, bus master, interrupt disable.
    writable[0x04] = 0x06
    writable[0x05] = 0x04
    // Interrupt pin A; the line is software's.
    bytes[0x3d] = 1
    writable[0x3c] = 0xff
    // Cache line size and latency timer are scratch.
    writable[0x0c] = 0xff
  }

  /// A 32-bit memory BAR.
  /// - Parameter byteCount: a power of two, at least 16.
  public mutating func addMemoryBAR(_ bar: Int, byteCount: UInt32) {
    precondition(byteCount >= 16 && byteCount & (byteCount - 1) == 0 && (0...5).contains(bar))
    let mask = ~(byteCount - 1)
    for index in 0..<4 {
      writable[0x10 + bar * 4 + index] = UInt8(truncatingIfNeeded: mask >> (8 * UInt32(index)))
    }
  }

  /// Appends a capability; `body` follows the two bytes of id and link.
  /// - Returns: its offset.
  @discardableResult
  public mutating func addCapability(
    _ identifier: UInt8, _ body: [UInt8], writable mask: [UInt8] = []
  ) -> Int {
    let offset = nextCapability
    precondition(offset + 2 + body.count <= Self.byteCount)
    bytes[offset] = identifier
    for (index, byte) in body.enumerated() { bytes[offset + 2 + index] = byte }
    for (index, byte) in mask.enumerated() { writable[offset + 2 + index] = byte }
    if lastCapability == 0 {
      bytes[0x34] = UInt8(offset)
      bytes[0x06] |= 0x10
    } else {
      bytes[lastCapability + 1] = UInt8(offset)
    }
    lastCapability = offset
    nextCapability = (offset + 2 + body.count + 3) & ~3
    return offset
  }

  /// Remembers the values as those after a reset.
  public mutating func seal() { initial = bytes }
  public mutating func reset() { if !initial.isEmpty { bytes = initial } }

  /// Reads 1, 2 or 4 bytes; what lies past the end reads as ones.
  public func read(at offset: Int, byteCount: Int) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<byteCount {
      let at = offset + index
      let byte = at >= 0 && at < Self.byteCount ? bytes[at] : 0xff
      value |= UInt32(byte) << UInt32(8 * index)
    }
    return value
  }

  public mutating func write(_ value: UInt32, at offset: Int, byteCount: Int) {
    for index in 0..<byteCount {
      let at = offset + index
      guard at >= 0 && at < Self.byteCount else { continue }
      let byte = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
      bytes[at] = bytes[at] & ~writable[at] | byte & writable[at]
    }
  }

  public var isBusMaster: Bool { bytes[0x04] & 0x04 != 0 }

  private mutating func set16(_ offset: Int, _ value: UInt16) {
    bytes[offset] = UInt8(truncatingIfNeeded: value)
    bytes[offset + 1] = UInt8(truncatingIfNeeded: value >> 8)
  }
}
