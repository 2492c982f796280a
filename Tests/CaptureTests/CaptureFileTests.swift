import Testing

@testable import Capture
@testable import CaptureFile

@Suite struct CaptureFileTests {
  /// Every block says how long it is, before and behind, and options end.
  @Test func blocksAreWhole() {
    var file = CaptureFile(application: "martlet")
    let interface = file.addInterface(
      "wire-rx", description: "from the wire", snapLength: 262_144, filter: "udp port 53")
    for length in 0..<9 {
      let packet = [UInt8](repeating: UInt8(length), count: length)
      packet.withUnsafeBytes {
        file.add(
          .init(
            interface: interface, time: 1_700_000_000_123_456_789, byteCount: 100, isInbound: true,
            queue: 1, comment: length == 3 ? "rule web" : nil), $0)
      }
    }
    file.addStatistics(
      of: interface, from: 1, to: 2, .init(seen: 9, matched: 9, dropped: 1), written: 8)
    let bytes = file.take()
    #expect(file.bytes.isEmpty)
    func word(_ place: Int) -> Int {
      bytes[place..<place + 4].reversed().reduce(0) { $0 << 8 | Int($1) }
    }
    var place = 0
    var types: [Int] = []
    while place < bytes.count {
      types.append(word(place))
      let length = word(place + 4)
      #expect(length % 4 == 0 && word(place + length - 4) == length)
      #expect(word(place + length - 8) == 0)
      place += length
    }
    #expect(place == bytes.count)
    #expect(types == [0x0a0d_0d0a, 1] + [Int](repeating: 6, count: 9) + [5])
  }

  /// UDP over IPv4, its checksum left to the device (values worked out by hand: RFC 1071).
  @Test func aChecksumThatWasLeftIsCompleted() {
    var record = CaptureRecord()
    record.packetBytes = 46
    record.checksumStart = 34
    record.checksumOffset = 6
    // The pseudo header's sum of 10.0.0.1, 10.0.0.2, protocol 17, length 12: 0x1400 + 3 + 0x11 + 0xc.
    var packet = [UInt8](repeating: 0, count: 34) + [0, 1, 0, 2, 0, 12, 0x14, 0x20, 1, 2, 3, 4]
    record.completeChecksum(in: &packet)
    // 0x0001 + 0x0002 + 0x000c + 0x1420 + 0x0102 + 0x0304 = 0x1835.
    #expect(packet[40] == 0xe7 && packet[41] == 0xca)
    // What was cut stays as it is.
    var cut = Array(packet.prefix(44))
    record.completeChecksum(in: &cut)
    #expect(cut == Array(packet.prefix(44)))
  }
}
