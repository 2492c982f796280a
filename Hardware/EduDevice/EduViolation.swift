/// Something that the driver did and the device's description (QEMU documentation, "EDU device") forbids.
public enum EduViolation: Equatable, Sendable {
  /// Registers below 0x80 are 4 bytes wide, those above 4 or 8.
  case width(offset: UInt64, byteCount: Int)
  case unknownRegister(offset: UInt64)
  case readOfWriteOnly(offset: UInt64)
  case writeToReadOnly(offset: UInt64)
  /// The engine was at work when this register was written.
  case busy(offset: UInt64)
  /// A result was read before it was there.
  case readTooEarly(offset: UInt64)
  case unknownBits(offset: UInt64, value: UInt64)
  case emptyTransfer
  /// Not wholly inside the buffer. Older QEMU aborts, also where a transfer ends exactly with the buffer.
  case outsideBuffer(address: UInt64, byteCount: UInt64)
  /// The address has bits that the device's 28 address lines do not carry.
  case beyondMask(iova: UInt64)
  /// A transfer or a message-signalled interrupt while bus mastering was off: it does not take place.
  case noBusMaster
}
