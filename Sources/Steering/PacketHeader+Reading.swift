extension PacketHeader {
  /// The EtherTypes of VLAN tags: IEEE 802.1Q, 802.1ad, and what was there before the latter.
  @inline(__always)
  static func isTag(_ type: UInt16) -> Bool { type == 0x8100 || type == 0x88a8 || type == 0x9100 }

  /// Reads the tags, and leaves the EtherType and the reader behind the second.
  /// - Returns: false where a tag that is to be looked behind is cut off.
  @inline(never)
  mutating func readTags(_ reader: inout HeaderReader, _ type: inout UInt16) -> Bool {
    guard let first = reader.take(4) else { return false }
    outerTag = first.number16(0)
    type = first.number16(2)
    tagCount = 1
    contents = .tag
    guard Self.isTag(type) else { return true }
    guard let second = reader.take(4) else { return false }
    innerTag = second.number16(0)
    type = second.number16(2)
    tagCount = 2
    contents = [.tag, .innerTag]
    var rest = reader
    var further = type
    while Self.isTag(further), let tag = rest.take(4) {
      further = tag.number16(2)
      tagCount &+= 1
    }
    return true
  }

  /// Reads what an EtherType names.
  @inline(__always)
  mutating func readNetwork(_ reader: inout HeaderReader, _ type: UInt16) {
    etherType = type
    networkOffset = UInt16(truncatingIfNeeded: reader.offset)
    let tags = contents
    switch type {
    case 0x0800: network = readIPv4(&reader) ? .ipv4 : .malformed
    case 0x86dd: network = readIPv6(&reader) ? .ipv6 : .malformed
    case 0x0806: network = readARP(&reader) ? .arp : .malformed
    default: network = .other
    }
    if network == .malformed { contents = tags }
  }

  @inline(never)
  private mutating func readARP(_ reader: inout HeaderReader) -> Bool {
    guard let header = reader.take(28) else { return false }
    // Ethernet, IPv4, addresses of six and four bytes.
    guard header.number32(0) == 0x0001_0800, header.number16(4) == 0x0604 else { return false }
    switch header.number16(6) {
    case 1: message = .addressRequest
    case 2: message = .addressReply
    default: return false
    }
    senderStation = header.number48(8)
    source = header.ipv4(14)
    destination = header.ipv4(24)
    return true
  }

  @inline(__always)
  private mutating func readIPv4(_ reader: inout HeaderReader) -> Bool {
    guard let header = reader.take(20) else { return false }
    let first = header.number8(0)
    let headerBytes = Int(first & 15) &* 4
    guard first &>> 4 == 4, headerBytes >= 20 else { return false }
    differentiatedServices = header.number8(1) &>> 2
    guard Int(header.number16(2)) >= headerBytes else { return false }
    let place = header.number16(6)
    setFragment(offset: place & 0x1fff, more: place & 0x2000 != 0)
    transport = header.number8(9)
    source = header.ipv4(12)
    destination = header.ipv4(16)
    guard reader.skip(headerBytes &- 20) else { return false }
    contents.formUnion([.ip, .ipv4])
    return readTransport(&reader)
  }

  @inline(never)
  private mutating func readIPv6(_ reader: inout HeaderReader) -> Bool {
    guard let header = reader.take(40) else { return false }
    let first = header.number32(0)
    guard first &>> 28 == 6 else { return false }
    differentiatedServices = UInt8(truncatingIfNeeded: first &>> 22) & 0x3f
    var next = header.number8(6)
    source = header.ipv6(8)
    destination = header.ipv6(24)
    contents.formUnion([.ip, .ipv6])
    // Each header takes 8 bytes at least of those that are looked at.
    while true {
      switch next {
      case 0, 43, 60:
        guard let extended = reader.take(8) else { return false }
        next = extended.number8(0)
        guard reader.skip(Int(extended.number8(1)) &* 8) else { return false }
      case 44:
        // One fragment header at most: with two, one could hide what the other says.
        guard let extended = reader.take(8), fragment == .none else { return false }
        next = extended.number8(0)
        let place = extended.number16(2)
        setFragment(offset: place &>> 3, more: place & 1 != 0)
        if fragment == .later {
          transport = next
          return readTransport(&reader)
        }
      default:
        transport = next
        return readTransport(&reader)
      }
    }
  }

  @inline(__always)
  private mutating func setFragment(offset: UInt16, more: Bool) {
    fragment = offset > 0 ? .later : more ? .first : .none
  }

  /// Reads what ``transport`` names.
  /// - Returns: false where it is cut off or contradicts itself.
  @inline(__always)
  mutating func readTransport(_ reader: inout HeaderReader) -> Bool {
    transportOffset = UInt16(truncatingIfNeeded: reader.offset)
    contents.insert(.transport)
    if fragment == .later { return true }
    switch transport {
    case 6:
      guard let header = reader.take(20) else { return false }
      setPorts(header)
      tcpHeaderBytes = UInt16(header.number8(12) &>> 4) &* 4
      return tcpHeaderBytes >= 20
    case 17:
      guard let header = reader.take(8) else { return false }
      setPorts(header)
      return true
    default: return readMessage(&reader)
    }
  }

  /// Reads what has no ports, or ports that nothing but rules asks for.
  @inline(never)
  private mutating func readMessage(_ reader: inout HeaderReader) -> Bool {
    switch transport {
    case 132:
      // Not malformed where it is cut off.
      if let header = reader.take(12) { setPorts(header) }
      return true
    case 1 where !source.isIPv6:
      guard let header = reader.take(8) else { return false }
      setMessage(header)
      switch messageType {
      case 0: message = .echoReply
      case 8: message = .echoRequest
      case 3, 4, 5, 11, 12:
        message = .error
        readInner(&reader)
      default: message = .other
      }
      return true
    case 58 where source.isIPv6:
      return readICMPv6(&reader)
    default: return true
    }
  }

  @inline(__always)
  private mutating func setPorts(_ header: HeaderBytes) {
    sourcePort = header.number16(0)
    destinationPort = header.number16(2)
    contents.insert(.ports)
  }

  private mutating func setMessage(_ header: HeaderBytes) {
    messageType = header.number8(0)
    messageCode = header.number8(1)
    contents.insert(.message)
  }

  private mutating func readICMPv6(_ reader: inout HeaderReader) -> Bool {
    guard let header = reader.take(4) else { return false }
    setMessage(header)
    switch messageType {
    case 128: message = .echoRequest
    case 129: message = .echoReply
    case 134: message = .routerAdvertisement
    case 135, 136:
      guard let rest = reader.take(20) else { return false }
      message = messageType == 135 ? .neighbourSolicitation : .neighbourAdvertisement
      target = rest.ipv6(4)
    case 1...127:
      guard reader.skip(4) else { return false }
      message = .error
      readInner(&reader)
    default: message = .other
    }
    return true
  }

  /// The packet inside an ICMP error, as far as it is there: its sender is who the error is for.
  private mutating func readInner(_ reader: inout HeaderReader) {
    if source.isIPv6 {
      guard let header = reader.take(40), header.number32(0) &>> 28 == 6 else { return }
      innerTransport = header.number8(6)
      target = header.ipv6(8)
    } else {
      guard let header = reader.take(20) else { return }
      let first = header.number8(0)
      guard first &>> 4 == 4, first & 15 >= 5 else { return }
      innerTransport = header.number16(6) & 0x1fff != 0 ? 0 : header.number8(9)
      target = header.ipv4(12)
      guard reader.skip(Int(first & 15) &* 4 &- 20) else { return }
    }
    guard innerTransport == 6 || innerTransport == 17, let ports = reader.take(2) else { return }
    innerPort = ports.number16(0)
  }
}
