/// Frames written byte by byte, for tests.
enum Frames {
  static let station: UInt64 = 0x5254_0012_3456
  static let peer: UInt64 = 0x0200_0000_0001
  static let broadcast: UInt64 = 0xffff_ffff_ffff

  static func bytes(_ value: UInt64, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) }
  }

  static func ethernet(
    to destination: UInt64 = station, from source: UInt64 = peer, type: UInt16, _ rest: [UInt8]
  ) -> [UInt8] {
    bytes(destination, 6) + bytes(source, 6) + bytes(UInt64(type), 2) + rest
  }

  static func ipv4(
    _ source: UInt32, _ destination: UInt32, _ transport: UInt8, fragment: UInt16 = 0,
    options: Int = 0, _ rest: [UInt8]
  ) -> [UInt8] {
    [UInt8(0x45 + options), 0] + bytes(UInt64(20 + 4 * options + rest.count), 2) + [0, 1]
      + bytes(UInt64(fragment), 2) + [64, transport, 0, 0] + bytes(UInt64(source), 4)
      + bytes(UInt64(destination), 4) + [UInt8](repeating: 1, count: 4 * options) + rest
  }

  static func ipv6(
    _ source: (UInt64, UInt64), _ destination: (UInt64, UInt64), _ next: UInt8, _ rest: [UInt8]
  ) -> [UInt8] {
    [0x60, 0, 0, 0] + bytes(UInt64(rest.count), 2) + [next, 64] + bytes(source.0, 8)
      + bytes(source.1, 8) + bytes(destination.0, 8) + bytes(destination.1, 8) + rest
  }

  static func udp(_ source: UInt16, _ destination: UInt16) -> [UInt8] {
    bytes(UInt64(source), 2) + bytes(UInt64(destination), 2) + [0, 8, 0, 0]
  }

  static func tcp(_ source: UInt16, _ destination: UInt16) -> [UInt8] {
    bytes(UInt64(source), 2) + bytes(UInt64(destination), 2) + [UInt8](repeating: 0, count: 8)
      + [0x50, 0x10] + [UInt8](repeating: 0, count: 6)
  }

  static func arp(
    _ operation: UInt16, from source: UInt32, to target: UInt32, station: UInt64 = peer
  ) -> [UInt8] {
    [0, 1, 8, 0, 6, 4] + bytes(UInt64(operation), 2) + bytes(station, 6)
      + bytes(UInt64(source), 4) + [0, 0, 0, 0, 0, 0] + bytes(UInt64(target), 4)
  }

  static func icmp(_ type: UInt8, _ rest: [UInt8] = [0, 0, 0, 0]) -> [UInt8] {
    [type, 0, 0, 0] + rest
  }
}
