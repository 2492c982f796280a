extension ClassifierView {
  /// Headers of one's own that are walked through in one packet.
  static let maximumDepth = 8

  /// Walks through the headers of one's own that a packet has, and writes its key.
  @inline(never)
  func walk(
    _ packet: PacketHeader, _ frame: UnsafeRawPointer, _ byteCount: Int,
    _ key: UnsafeMutablePointer<UInt64>
  ) {
    var packet = packet
    let end = min(byteCount, PacketHeader.maximumBytes)
    var present: UInt64 = 0
    var place = Place(packet)
    for field in 0..<Int(header.pointee.fieldCount) { key[PacketKey.fields &+ field] = 0 }
    var depth = 0
    while depth < Self.maximumDepth, let definition = definition(place) {
      depth &+= 1
      let reader = HeaderReader(frame, end, at: place.offset)
      guard let length = Self.length(definition, reader), reader.has(length) else { break }
      let bit: UInt64 = 1 &<< UInt64(definition.header)
      if present & bit == 0 { present |= bit | readFields(definition.header, reader, length, key) }
      guard definition.nextBytes > 0,
        Int(definition.nextOffset) &+ Int(definition.nextBytes) <= length
      else { break }
      let next = reader.bits(
        Int(definition.nextOffset), Int(definition.nextBytes), definition.nextMask)
      place.offset &+= length
      place.goOn(definition.nextNumbers, next, &packet, HeaderReader(frame, end, at: place.offset))
    }
    PacketKey.write(packet, to: key)
    key[PacketKey.headers] = present
  }

  private func definition(_ place: Place) -> ClassifierDefinition? {
    let definitions = (start + header.pointee.definitions)
      .assumingMemoryBound(to: ClassifierDefinition.self)
    for index in 0..<Int(header.pointee.definitionCount)
    where definitions[index].type == place.type && definitions[index].layer == place.layer {
      return definitions[index]
    }
    return nil
  }

  /// - Returns: nil where the header is cut off before what says its length, or ends before it.
  private static func length(_ definition: ClassifierDefinition, _ reader: HeaderReader) -> Int? {
    if definition.lengthBytes == 0 { return Int(definition.lengthAdd) }
    let end = Int(definition.lengthOffset) &+ Int(definition.lengthBytes)
    guard reader.has(end) else { return nil }
    let value = reader.bits(
      Int(definition.lengthOffset), Int(definition.lengthBytes), definition.lengthMask)
    guard value <= UInt64(PacketHeader.maximumBytes) else { return nil }
    let length =
      Int(truncatingIfNeeded: value) &* Int(definition.lengthScale) &+ Int(definition.lengthAdd)
    return length >= end ? length : nil
  }

  /// - Returns: the bits of the fields that are there.
  private func readFields(
    _ index: UInt8, _ reader: HeaderReader, _ length: Int, _ key: UnsafeMutablePointer<UInt64>
  ) -> UInt64 {
    let fields = (start + header.pointee.fields).assumingMemoryBound(to: ClassifierField.self)
    var present: UInt64 = 0
    for place in 0..<Int(header.pointee.fieldCount) where fields[place].header == index {
      let (offset, count) = (Int(fields[place].offset), Int(fields[place].byteCount))
      guard offset &+ count <= length else { continue }
      key[PacketKey.fields &+ place] = reader.bits(offset, count, fields[place].mask)
      present |= 1 &<< UInt64(32 &+ place)
    }
    return present
  }
}

/// Where in a packet a header of one's own is looked for.
private struct Place {
  /// A ``ClassifierLayer``, or none that there is.
  var layer = UInt8.max
  var type: UInt64 = 0
  /// From the frame's start.
  var offset = 0

  /// Behind all that is understood.
  init(_ packet: PacketHeader) {
    if packet.network == .other {
      set(ClassifierLayer.ethernet, packet.etherType, packet.networkOffset)
    } else {
      setTransport(packet)
    }
  }

  private mutating func set(_ layer: UInt8, _ type: some BinaryInteger, _ offset: UInt16) {
    self.layer = layer
    self.type = UInt64(truncatingIfNeeded: type)
    self.offset = Int(offset)
  }

  /// Behind IP, UDP or TCP; of fragments only the first has anything there.
  private mutating func setTransport(_ packet: PacketHeader) {
    layer = .max
    guard packet.contents.contains(.transport), packet.fragment != .later else { return }
    switch packet.transport {
    case 17 where packet.contents.contains(.ports):
      set(ClassifierLayer.udp, packet.destinationPort, packet.transportOffset &+ 8)
    case 6 where packet.contents.contains(.ports):
      set(
        ClassifierLayer.tcp, packet.destinationPort,
        packet.transportOffset &+ packet.tcpHeaderBytes)
    default:
      set(
        packet.contents.contains(.ipv6) ? ClassifierLayer.ipv6 : ClassifierLayer.ipv4,
        packet.transport, packet.transportOffset)
    }
  }

  /// Behind a header of one's own that says what follows. What the packet does not have yet, it gets from there.
  mutating func goOn(
    _ numbers: UInt8, _ number: UInt64, _ packet: inout PacketHeader, _ reader: HeaderReader
  ) {
    var reader = reader
    layer = numbers
    type = number
    switch numbers {
    case ClassifierNumbers.etherType:
      layer = ClassifierLayer.ethernet
      guard number <= 0xffff, packet.network == .other, !packet.contents.contains(.transport) else {
        return
      }
      packet.readNetwork(&reader, UInt16(truncatingIfNeeded: number))
      if packet.network != .other { setTransport(packet) }
    case ClassifierNumbers.ipProtocol:
      layer =
        packet.contents.contains(.ipv6) ? ClassifierLayer.ipv6 : ClassifierLayer.ipv4
      guard number <= 0xff, packet.contents.isDisjoint(with: [.ports, .message]) else { return }
      packet.goOn(&reader, transport: UInt8(truncatingIfNeeded: number))
      setTransport(packet)
    default: break
    }
  }
}

extension PacketHeader {
  /// Goes on with an IP protocol behind a header that says so.
  fileprivate mutating func goOn(_ reader: inout HeaderReader, transport: UInt8) {
    self.transport = transport
    if !readTransport(&reader) {
      network = .malformed
      contents.formIntersection([.tag, .innerTag])
    }
  }
}

extension HeaderReader {
  /// Some bits of what is next, in network order, moved to the right end.
  /// - Parameters:
  ///   - offset: from here; all of it is there.
  ///   - byteCount: 1 to 8.
  func bits(_ offset: Int, _ byteCount: Int, _ mask: UInt64) -> UInt64 {
    var reader = self
    guard reader.skip(offset), let bytes = reader.take(byteCount) else { return 0 }
    var value: UInt64 = 0
    for index in 0..<byteCount { value = value &<< 8 | UInt64(bytes.number8(index)) }
    return (value & mask) &>> UInt64(mask.trailingZeroBitCount)
  }
}
