import Testing

@testable import Steering

/// Two frames have the same key where a rule or a claim could not tell them apart, and only there.
@Suite struct FlowKeyTests {
  private static let plain: [[UInt8]] = [
    Frames.ethernet(type: 0x0800, Frames.ipv4(0x0a00_0001, 0x0a00_0002, 17, Frames.udp(9, 80))),
    Frames.ethernet(type: 0x0800, Frames.ipv4(0x0a00_0001, 0x0a00_0002, 6, Frames.tcp(9, 80))),
    Frames.ethernet(
      type: 0x86dd, Frames.ipv6((0xfd00 << 48, 1), (0x2001_0db8 << 32, 5), 17, Frames.udp(9, 80))),
    Frames.ethernet(
      type: 0x86dd, Frames.ipv6((0xfd00 << 48, 1), (0x2001_0db8 << 32, 5), 6, Frames.tcp(9, 80))),
  ]

  private func key(_ frame: [UInt8], _ byteCount: Int? = nil) -> FlowKey? {
    frame.withUnsafeBytes { FlowKey(frame: $0.baseAddress!, byteCount: byteCount ?? $0.count) }
  }

  private func header(_ frame: [UInt8], _ byteCount: Int? = nil) -> PacketHeader {
    frame.withUnsafeBytes {
      PacketHeader(frame: $0.baseAddress!, byteCount: byteCount ?? $0.count)
    }
  }

  private func words(_ frame: [UInt8]) -> [UInt64] {
    [UInt64](unsafeUninitializedCapacity: PacketKey.plainWords) { words, count in
      PacketKey.write(header(frame), to: words.baseAddress!)
      count = PacketKey.plainWords
    }
  }

  private func isPlain(_ header: PacketHeader) -> Bool {
    let contents: PacketHeader.Contents = [.ip, .transport, .ports]
    return header.contents == contents.union(.ipv4) && header.kind == .ipv4
      || header.contents == contents.union(.ipv6) && header.kind == .ipv6
  }

  @Test(arguments: plain) func eachBitThatCountsIsInTheKey(frame: [UInt8]) throws {
    let whole = try #require(key(frame))
    #expect(isPlain(header(frame)))
    var same = 0
    for bit in 0..<8 * frame.count {
      var other = frame
      other[bit / 8] ^= 1 << UInt8(bit % 8)
      guard let changed = key(other) else { continue }
      #expect(isPlain(header(other)), "bit \(bit)")
      #expect((changed == whole) == (words(other) == words(frame)), "bit \(bit)")
      #expect(changed != whole || changed.hash((1, 2)) == whole.hash((1, 2)))
      if changed == whole { same += 1 }
    }
    // Time to live, for one, does not count.
    #expect(same > 8 && same < 4 * frame.count)
  }

  @Test(arguments: plain) func whatIsCutOffHasNone(frame: [UInt8]) {
    for byteCount in 0...frame.count {
      #expect(
        (key(frame, byteCount) != nil) == isPlain(header(frame, byteCount)), "\(byteCount) bytes")
    }
  }

  @Test func whatIsNotPlainHasNone() {
    let udp = Frames.udp(9, 80)
    let others = [
      Frames.ethernet(type: 0x0800, Frames.ipv4(1, 2, 17, options: 1, udp)),
      Frames.ethernet(type: 0x0800, Frames.ipv4(1, 2, 17, fragment: 0x2000, udp)),
      Frames.ethernet(type: 0x0800, Frames.ipv4(1, 2, 17, fragment: 1, udp)),
      Frames.ethernet(type: 0x0800, Frames.ipv4(1, 2, 1, Frames.icmp(8, Frames.bytes(0, 20)))),
      Frames.ethernet(type: 0x0800, Frames.ipv4(1, 2, 132, Frames.tcp(9, 80))),
      Frames.ethernet(type: 0x8100, [0, 5, 8, 0] + Frames.ipv4(1, 2, 17, udp)),
      Frames.ethernet(type: 0x0806, Frames.arp(1, from: 1, to: 2) + Frames.bytes(0, 20)),
      Frames.ethernet(
        type: 0x86dd, Frames.ipv6((1, 2), (3, 4), 0, [17, 0, 1, 4, 0, 0, 0, 0] + udp)),
      Frames.ethernet(type: 0x86dd, Frames.ipv6((1, 2), (3, 4), 58, Frames.icmp(128) + udp)),
    ]
    for frame in others { #expect(key(frame) == nil) }
    #expect(key(Self.plain[0]) != FlowKey())
  }

  /// As random as they come: what has a key is what is said of it.
  @Test func randomFramesAgree() {
    var generator = SystemRandomNumberGenerator()
    var keys = 0
    for _ in 0..<20_000 {
      var frame = Self.plain.randomElement(using: &generator)!
      for _ in 0..<Int.random(in: 0...3, using: &generator) {
        frame[Int.random(in: 12..<frame.count, using: &generator)] = .random(
          in: 0...255, using: &generator)
      }
      guard let one = key(frame) else { continue }
      keys += 1
      #expect(isPlain(header(frame)))
      var other = frame
      other[Int.random(in: 0..<frame.count, using: &generator)] ^= 1 << UInt8.random(in: 0..<8)
      guard let two = key(other) else { continue }
      #expect((one == two) == (words(frame) == words(other)))
    }
    #expect(keys > 1000)
  }
}
