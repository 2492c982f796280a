/// The device's own copy of the tables in Drivers/RadioLink/RadioLink.md: it shares none with the driver, so that a
/// mistake in one of them shows.
enum RegisterTable {
  static let vendor: UInt16 = 0x1af4
  static let device: UInt16 = 0x10f2
  static let classCode: UInt32 = 0x02_8000
  static let identity: UInt32 = 0x314b_4c52

  enum Offset {
    static let identity: UInt64 = 0x00
    static let version: UInt64 = 0x04
    static let control: UInt64 = 0x08
    static let status: UInt64 = 0x0c
    static let failure: UInt64 = 0x10
    static let addressLow: UInt64 = 0x14
    static let addressHigh: UInt64 = 0x18
    static let mtu: UInt64 = 0x1c
    static let payloadBytes: UInt64 = 0x20
    static let window: UInt64 = 0x24
    static let ringLimit: UInt64 = 0x28
    static let events: UInt64 = 0x30
    static let arm: UInt64 = 0x34
    /// Four addresses of 64 bits and two sizes: what may not change while the device runs.
    static let rings: ClosedRange<UInt64> = 0x40...0x64
    static let receiveTail: UInt64 = 0x80
    static let transmitTail: UInt64 = 0x84
    static let counters: ClosedRange<UInt64> = 0xc0...0xcc
  }

  /// Words from the first of `Offset.rings`.
  enum RingWord {
    static let receive = 0
    static let completion = 2
    static let transmit = 4
    static let indexes = 6
    static let receiveSize = 8
    static let transmitSize = 9
    static let count = 10
  }

  static let enable: UInt32 = 1
  static let reset: UInt32 = 0x8000_0000
  static let linkUp: UInt32 = 1
  static let running: UInt32 = 2
  static let failed: UInt32 = 4
  static let linkEvent: UInt32 = 1
  static let receiveArm: UInt32 = 1
  static let transmitArm: UInt32 = 2

  static let ringLimit: UInt32 = 4096
  /// Buffers that are kept for the PDU at the lower edge of the window.
  static let reserve: UInt32 = 16
}

/// Why the device has stopped, as FAILURE says it.
public enum RadioLinkFailure: UInt32, Sendable {
  case none = 0
  case ringIndex = 1
  case descriptor = 2
  case access = 3
}
