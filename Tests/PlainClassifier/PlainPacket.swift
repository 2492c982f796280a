import Steering

/// A packet's headers read the plain way, from the specifications: what a rule can ask for, or nil where it has none.
/// It shares nothing with what it is compared with but the rules' types.
public struct PlainPacket {
  struct Malformed: Error {}

  /// 0 of a frame without a whole header.
  var destinationStation: UInt64 = 0
  var sourceStation: UInt64 = 0
  /// The first two.
  var tags: [UInt16] = []
  /// 0 where it is cut off.
  var etherType: UInt16 = 0
  var isIPv6: Bool?
  var source: UInt128 = 0
  var destination: UInt128 = 0
  var services: UInt8?
  var fragment: FragmentPattern?
  var transport: UInt8?
  var ports: (source: UInt16, destination: UInt16)?
  var message: (type: UInt8, code: UInt8)?
  /// Of protocols of one's own, the fields that are there.
  var headers: [String: [String: UInt64]] = [:]

  /// - Parameter frame: of which the first 128 bytes are looked at.
  public init(_ frame: [UInt8], _ protocols: [ProtocolDefinition] = []) {
    if frame.count < 14 { return }
    var reader = PlainReader(bytes: frame.prefix(128))
    do {
      destinationStation = try reader.number(6)
      sourceStation = try reader.number(6)
      var type = UInt16(try reader.number(2))
      while tags.count < 2, [0x8100, 0x88a8, 0x9100].contains(type) {
        let tag = UInt16(try reader.number(2))
        type = UInt16(try reader.number(2))
        tags.append(tag)
      }
      var follows = try network(type, &reader)
      var steps = 0
      while let place = follows, steps < 8,
        let definition = protocols.first(where: { place.fits($0) })
      {
        steps += 1
        follows = try walk(definition, &reader)
      }
    } catch {
      forget()
    }
  }

  /// Of a malformed packet only Ethernet counts, and what was read of headers of one's own.
  private mutating func forget() {
    isIPv6 = nil
    services = nil
    fragment = nil
    transport = nil
    ports = nil
    message = nil
  }

  /// What comes next: who gave the number, and the number.
  struct Place {
    var layer: String
    var number: UInt64

    func fits(_ definition: ProtocolDefinition) -> Bool {
      let layers: [String] =
        switch definition.layer {
        case .ethernet: ["ethernet"]
        case .ipv4: ["ipv4"]
        case .ipv6: ["ipv6"]
        case .ip: ["ipv4", "ipv6"]
        case .udp: ["udp"]
        case .tcp: ["tcp"]
        case .own(let name): ["own " + name]
        }
      return layers.contains(layer) && definition.type == number
    }
  }

  private mutating func network(_ type: UInt16, _ reader: inout PlainReader) throws -> Place? {
    etherType = type
    switch type {
    case 0x0800: return try ipv4(&reader)
    case 0x86dd: return try ipv6(&reader)
    case 0x0806:
      // RFC 826: Ethernet, IPv4, request or reply.
      let kind = [try reader.number(2), try reader.number(2), try reader.number(2)]
      let operation = try reader.number(2)
      _ = try reader.bytes(20)
      guard kind == [1, 0x0800, 0x0604], operation == 1 || operation == 2 else { throw Malformed() }
      return nil
    default: return Place(layer: "ethernet", number: UInt64(type))
    }
  }

  /// RFC 791, 3.1.
  private mutating func ipv4(_ reader: inout PlainReader) throws -> Place? {
    var header = PlainReader(bytes: try reader.bytes(20))
    let first = try header.number(1)
    let length = Int(first % 16) * 4
    guard first / 16 == 4, length >= 20 else { throw Malformed() }
    let services = try header.number(1) / 4
    guard try header.number(2) >= length else { throw Malformed() }
    _ = try header.number(2)
    let place = try header.number(2)
    _ = try header.number(1)
    let transport = UInt8(try header.number(1))
    _ = try header.number(2)
    source = UInt128(try header.number(4))
    destination = UInt128(try header.number(4))
    _ = try reader.bytes(length - 20)
    isIPv6 = false
    self.services = UInt8(services)
    fragment = place % 0x2000 > 0 ? .later : place & 0x2000 > 0 ? .first : .no
    return try self.transport(transport, &reader)
  }

  /// RFC 8200, 3 and 4.
  private mutating func ipv6(_ reader: inout PlainReader) throws -> Place? {
    var header = PlainReader(bytes: try reader.bytes(40))
    let first = try header.number(4)
    guard first >> 28 == 6 else { throw Malformed() }
    isIPv6 = true
    services = UInt8((first >> 20 & 0xff) / 4)
    fragment = .no
    _ = try header.number(2)
    var next = UInt8(try header.number(1))
    _ = try header.number(1)
    source = UInt128(try header.number(8)) << 64 | UInt128(try header.number(8))
    destination = UInt128(try header.number(8)) << 64 | UInt128(try header.number(8))
    while [0, 43, 44, 60].contains(next) {
      if next == 44 {
        var extended = PlainReader(bytes: try reader.bytes(8))
        if fragment != .no { throw Malformed() }
        next = UInt8(try extended.number(1))
        _ = try extended.number(1)
        let place = try extended.number(2)
        fragment = place / 8 > 0 ? .later : place % 2 > 0 ? .first : .no
        if fragment == .later { break }
      } else {
        let following = UInt8(try reader.number(1))
        let length = Int(try reader.number(1))
        _ = try reader.bytes(8 * length + 6)
        next = following
      }
    }
    return try transport(next, &reader)
  }

  private mutating func transport(_ number: UInt8, _ reader: inout PlainReader) throws -> Place? {
    transport = number
    if fragment == .later { return nil }
    let layer = isIPv6 == true ? "ipv6" : "ipv4"
    switch number {
    case 6:
      // RFC 9293, 3.1: the length is in the upper half of the thirteenth byte.
      var header = PlainReader(bytes: try reader.bytes(20))
      ports = (UInt16(try header.number(2)), UInt16(try header.number(2)))
      _ = try header.bytes(8)
      let length = Int(try header.number(1) / 16) * 4
      guard length >= 20 else { throw Malformed() }
      reader.skip(length - 20)
      return Place(layer: "tcp", number: UInt64(ports?.destination ?? 0))
    case 17:
      var header = PlainReader(bytes: try reader.bytes(8))
      ports = (UInt16(try header.number(2)), UInt16(try header.number(2)))
      return Place(layer: "udp", number: UInt64(ports?.destination ?? 0))
    case 132:
      // RFC 9260, 3.1. Nothing is wrong where it is cut off.
      if var header = try? PlainReader(bytes: reader.bytes(12)) {
        ports = (UInt16(try header.number(2)), UInt16(try header.number(2)))
      }
      return nil
    case 1 where isIPv6 != true:
      var header = PlainReader(bytes: try reader.bytes(8))
      message = (UInt8(try header.number(1)), UInt8(try header.number(1)))
      return nil
    case 58 where isIPv6 == true:
      var header = PlainReader(bytes: try reader.bytes(4))
      let type = UInt8(try header.number(1))
      message = (type, UInt8(try header.number(1)))
      // RFC 4861, 4.3 and 4.4: with a target; RFC 4443, 2.1: errors have eight bytes.
      if type == 135 || type == 136 { _ = try reader.bytes(20) }
      if (1...127).contains(type) { _ = try reader.bytes(4) }
      return nil
    default: return Place(layer: layer, number: UInt64(number))
    }
  }

  private mutating func walk(
    _ definition: ProtocolDefinition, _ reader: inout PlainReader
  ) throws -> Place? {
    var length: Int
    switch definition.headerLength {
    case .fixed(let bytes): length = bytes
    case .variable(let bits, let scale, let add):
      guard let value = reader.value(bits), value <= 128 else { return nil }
      length = Int(value) * scale + add
      if length < bits.offset + bits.byteCount { return nil }
    }
    guard let header = try? reader.bytes(length) else { return nil }
    let inside = PlainReader(bytes: header)
    if headers[definition.name] == nil {
      var values: [String: UInt64] = [:]
      for field in definition.fields { values[field.name] = inside.value(field.bits) }
      headers[definition.name] = values
    }
    guard let next = definition.next, let number = inside.value(next.number) else { return nil }
    switch next.numbers {
    case .own(let name): return Place(layer: "own " + name, number: number)
    case .etherType:
      if isIPv6 != nil || transport != nil || number > 0xffff {
        return Place(layer: "ethernet", number: number)
      }
      return try network(UInt16(number), &reader)
    case .ipProtocol:
      if ports != nil || message != nil || number > 0xff {
        return Place(layer: isIPv6 == true ? "ipv6" : "ipv4", number: number)
      }
      return try transport(UInt8(number), &reader)
    }
  }
}

/// Bytes in network order.
struct PlainReader {
  var bytes: ArraySlice<UInt8>

  mutating func bytes(_ count: Int) throws -> ArraySlice<UInt8> {
    guard bytes.count >= count else { throw PlainPacket.Malformed() }
    defer { bytes = bytes.dropFirst(count) }
    return bytes.prefix(count)
  }

  mutating func number(_ count: Int) throws -> UInt64 {
    try bytes(count).reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// What is not there is not there.
  mutating func skip(_ count: Int) { bytes = bytes.dropFirst(count) }

  func value(_ field: ProtocolDefinition.BitField) -> UInt64? {
    guard bytes.count >= field.offset + field.byteCount else { return nil }
    var value = bytes.dropFirst(field.offset).prefix(field.byteCount)
      .reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    value &= field.mask
    var mask = field.mask
    while mask % 2 == 0 {
      mask /= 2
      value /= 2
    }
    return value
  }
}
