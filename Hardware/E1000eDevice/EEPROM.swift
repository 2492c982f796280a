/// The non-volatile memory that EERD reads (82574 datasheet, 10.2.2, and chapter 6 for its map).
struct EEPROM {
  static let wordCount = 64
  private(set) var words: [UInt16]

  /// Words 0 to 2 are the address, low byte first; word 0x3f makes the sum of all 0xbaba.
  init(macAddress: [UInt8]) {
    words = Array(repeating: 0, count: Self.wordCount)
    for index in 0..<3 {
      words[index] = UInt16(macAddress[2 * index]) | UInt16(macAddress[2 * index + 1]) << 8
    }
    // Initialization control 1, subsystem and vendor id, device id.
    words[0x0a] = 0x5c4b
    words[0x0b] = 0x0000
    words[0x0c] = 0x8086
    words[0x0d] = 0x10d3
    let sum = words.dropLast().reduce(0 as UInt16, &+)
    words[0x3f] = 0xbaba &- sum
  }

  /// One EERD access: START with an address in, DONE with data out.
  func read(_ command: UInt32) -> UInt32 {
    guard command & 1 != 0 else { return command }
    let address = Int(command >> 2 & 0x3fff)
    let data = address < words.count ? words[address] : 0xffff
    return UInt32(data) << 16 | command & 0xfffc | 2
  }
}
