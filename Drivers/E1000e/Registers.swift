/// Registers of the 82574L in BAR 0, byte offsets (datasheet, chapter 10; the offsets of table 10-2).
enum Register {
  static let control = 0x00000
  static let status = 0x00008
  static let eeprom = 0x00010
  static let eepromRead = 0x00014
  static let extendedControl = 0x00018
  static let phyAccess = 0x00020
  static let interruptCause = 0x000c0
  static let interruptMaskSet = 0x000d0
  static let interruptMaskClear = 0x000d8
  static let interruptAutoClear = 0x000dc
  static let interruptVectors = 0x000e4
  /// One for each MSI-X vector, 4 apart.
  static let throttle = 0x000e8
  static let lineThrottle = 0x000c4
  static let receiveControl = 0x00100
  static let transmitControl = 0x00400
  static let interPacketGap = 0x00410
  static let phyOwnership = 0x00f00
  /// Queue 0; queue 1 is 0x100 further.
  static let receiveQueue = 0x02800
  static let transmitQueue = 0x03800
  static let transmitArbitration = 0x03840
  static let receiveChecksum = 0x05000
  static let receiveFilter = 0x05008
  static let multicastTable = 0x05200
  static let receiveAddress = 0x05400
  static let multipleQueues = 0x05818
  static let redirection = 0x05c00
  static let hashKey = 0x05c80
  static let pcieControl = 0x05b00
}

/// Registers of a queue, from the queue's first (10.2.5.4 and 10.2.6.4).
enum QueueRegister {
  static let baseLow = 0x00
  static let baseHigh = 0x04
  static let byteCount = 0x08
  static let head = 0x10
  static let tail = 0x18
  static let control = 0x28
  static let stride = 0x100
}

enum Control {
  static let masterDisable: UInt32 = 1 << 2
  static let setLinkUp: UInt32 = 1 << 6
  static let forceSpeedAndDuplex: UInt32 = 1 << 11 | 1 << 12
  static let reset: UInt32 = 1 << 26
}

enum Status {
  static let linkUp: UInt32 = 1 << 1
  static let masterEnabled: UInt32 = 1 << 19
}

enum ExtendedControl {
  /// Must be set (10.2.2.5).
  static let reserved: UInt32 = 1 << 22
  static let driverLoaded: UInt32 = 1 << 28
  /// MSI-X pending bits are kept in the function, not in the interrupt cause.
  static let pendingBitClear: UInt32 = 1 << 31
}

enum Cause {
  static let transmitted: UInt32 = 1 << 0
  static let link: UInt32 = 1 << 2
  static let received: UInt32 = 1 << 7
  static let other: UInt32 = 1 << 24
  static func receive(queue: Int) -> UInt32 { 1 << UInt32(20 + queue) }
  static func transmit(queue: Int) -> UInt32 { 1 << UInt32(22 + queue) }
}

enum ReceiveControl {
  static let enable: UInt32 = 1 << 1
  static let unicastPromiscuous: UInt32 = 1 << 3
  static let promiscuous: UInt32 = 1 << 3 | 1 << 4
  static let longPackets: UInt32 = 1 << 5
  static let broadcast: UInt32 = 1 << 15
  static let stripChecksum: UInt32 = 1 << 26
  // Buffers of 2048 bytes are size 0 without the extension.
}

enum TransmitControl {
  static let enable: UInt32 = 1 << 1
  static let padShort: UInt32 = 1 << 3
  /// Collision threshold 15 and distance 63, as for full duplex (10.2.6.1).
  static let collisions: UInt32 = 15 << 4 | 63 << 12
}

/// Status and errors of a received descriptor. The legacy format has the same bits in two bytes (7.1.4, 7.1.5).
enum Received {
  static let done: UInt32 = 1 << 0
  static let endOfPacket: UInt32 = 1 << 1
  static let ignoreChecksum: UInt32 = 1 << 2
  static let transportChecked: UInt32 = 1 << 4 | 1 << 5
  static let checksumErrors: UInt32 = 1 << 29 | 1 << 30
  /// CRC or alignment, symbol, sequence, carrier extension, receive data.
  static let frameErrors: UInt32 = 0x9700_0000
}

/// Second half of a transmit descriptor (7.2.10 to 7.2.12).
enum TransmitDescriptor {
  static let data: UInt64 = 1 << 20
  static let endOfPacket: UInt64 = 1 << 24
  static let insertFCS: UInt64 = 1 << 25
  static let segmentation: UInt64 = 1 << 26
  static let reportStatus: UInt64 = 1 << 27
  static let extended: UInt64 = 1 << 29
  static let done: UInt64 = 1 << 32
  static let insertIPChecksum: UInt64 = 1 << 40
  static let insertTransportChecksum: UInt64 = 1 << 41
  /// In a context: the packet is TCP, and IP version 4.
  static let tcp: UInt64 = 1 << 24
  static let ipv4: UInt64 = 1 << 25
}
