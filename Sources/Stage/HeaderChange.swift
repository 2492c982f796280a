import Channel
import Memory
import Steering

/// What is to be written into a packet's headers; what is nil stays.
public struct HeaderChange: Sendable, BitwiseCopyable {
  /// Of the IP header, of the same family as what stands there.
  public var source: NetworkAddress?
  /// The same.
  public var destination: NetworkAddress?
  /// Of TCP or UDP.
  public var sourcePort: UInt16?
  /// The same.
  public var destinationPort: UInt16?
  /// Of an ICMP or ICMPv6 echo or its reply.
  public var identifier: UInt16?

  /// No change.
  @inlinable
  public init(
    source: NetworkAddress? = nil, destination: NetworkAddress? = nil, sourcePort: UInt16? = nil,
    destinationPort: UInt16? = nil, identifier: UInt16? = nil
  ) {
    self.source = source
    self.destination = destination
    self.sourcePort = sourcePort
    self.destinationPort = destinationPort
    self.identifier = identifier
  }
}

extension StagePacket {
  /// Writes addresses, ports and identifiers, and brings the checksums of IPv4, TCP, UDP, UDP-Lite, DCCP, ICMP and ICMPv6
  /// along: what was right stays right, whatever of the packet is there.
  ///
  /// Where the device is to complete the checksum, its field holds the sum of the pseudo-header alone (virtio 1.2, 5.1.6.2):
  /// addresses change that, ports do not. So it is with what is to be cut into segments. A UDP checksum of 0 stays. Of later
  /// fragments there is only the IP header, and the first one's checksum takes the same change. Where a routing header or a
  /// source route has still to be followed, the sum is over another destination, and becomes wrong.
  /// - Parameters:
  ///   - header: ``header``, with no bytes inserted or removed since.
  ///   - change: what is to be written.
  /// - Returns: false where the packet has no such field, or is cut off before it; nothing is written then.
  @inlinable
  public mutating func rewrite(_ header: PacketHeader, _ change: HeaderChange) -> Bool {
    guard header.contents.contains(.ip) else { return false }
    let network = Int(header.networkOffset)
    let transport = Int(header.transportOffset)
    let isIPv6 = header.contents.contains(.ipv6)
    guard has(isIPv6 ? 40 : 20, at: network),
      change.source.map({ $0.isIPv6 == isIPv6 }) ?? true,
      change.destination.map({ $0.isIPv6 == isIPv6 }) ?? true
    else { return false }
    let end = self.end(of: header)
    let hasTransport = header.fragment != .later
    let sum = hasTransport ? ChecksumField(header.transport, isIPv6: isIPv6) : nil
    if let sum, transport + sum.offset + 2 > end { return false }
    if change.sourcePort != nil || change.destinationPort != nil {
      let hasPorts = header.transport == 6 || header.transport == 17
      guard hasTransport, hasPorts, transport + 4 <= end else { return false }
    }
    if change.identifier != nil {
      guard hasTransport, header.message == .echoRequest || header.message == .echoReply,
        transport + 6 <= end
      else { return false }
    }
    // Everything is there: now it is written.
    var addresses = ChecksumChange()
    if isIPv6 {
      if let source = change.source { replace(source, at: network + 8, &addresses) }
      if let destination = change.destination { replace(destination, at: network + 24, &addresses) }
    } else {
      if let source = change.source {
        replace32(UInt32(truncatingIfNeeded: source.low), at: network + 12, &addresses)
      }
      if let destination = change.destination {
        replace32(UInt32(truncatingIfNeeded: destination.low), at: network + 16, &addresses)
      }
      correct(addresses, at: network + 10)
    }
    var ports = ChecksumChange()
    if let port = change.sourcePort { replace16(port, at: transport, &ports) }
    if let port = change.destinationPort { replace16(port, at: transport + 2, &ports) }
    if let identifier = change.identifier { replace16(identifier, at: transport + 4, &ports) }
    if let sum {
      correct(sum, at: transport, pseudoHeader: addresses, contents: ports)
    }
    return true
  }

  /// Where an IP packet ends: where its header says, as far as the bytes are there. What lies behind that in a frame is
  /// padding, which no checksum covers. A length of 0 is that of a packet too long for the field, before it is cut.
  @inlinable
  public func end(of header: PacketHeader) -> Int {
    let network = Int(header.networkOffset)
    let isIPv6 = header.contents.contains(.ipv6)
    guard header.contents.contains(.ip), has(6, at: network) else { return byteCount }
    let length = Int(number16(at: network + (isIPv6 ? 4 : 2)))
    return length == 0 ? byteCount : min(byteCount, network + length + (isIPv6 ? 40 : 0))
  }

  /// Brings a transport checksum along.
  /// - Parameters:
  ///   - sum: which one; its field must be there.
  ///   - transport: bytes from the packet's start to the transport header.
  ///   - pseudoHeader: what has changed of addresses.
  ///   - contents: what has changed behind the IP header.
  @inlinable
  public mutating func correct(
    _ sum: ChecksumField, at transport: Int, pseudoHeader: ChecksumChange,
    contents: ChecksumChange
  ) {
    let field = transport + sum.offset
    let metadata = place.metadata
    if metadata.needsChecksum, Int(metadata.checksumStart) == transport,
      Int(metadata.checksumOffset) == sum.offset
    {
      if sum.hasPseudoHeader {
        store16(pseudoHeader.applied(toPartialSum: number16(at: field)), at: field)
      }
      return
    }
    var change = contents
    if sum.hasPseudoHeader { change.add(pseudoHeader) }
    if sum.mayBeMissing { correctUDP(change, at: field) } else { correct(change, at: field) }
  }

  @inlinable
  mutating func replace(
    _ address: NetworkAddress, at offset: Int, _ change: inout ChecksumChange
  ) {
    replace32(UInt32(truncatingIfNeeded: address.high &>> 32), at: offset, &change)
    replace32(UInt32(truncatingIfNeeded: address.high), at: offset + 4, &change)
    replace32(UInt32(truncatingIfNeeded: address.low &>> 32), at: offset + 8, &change)
    replace32(UInt32(truncatingIfNeeded: address.low), at: offset + 12, &change)
  }
}

/// Where a protocol above IP has its checksum, and what that covers besides header and payload.
@frozen
public struct ChecksumField: BitwiseCopyable, Sendable {
  /// Bytes from the transport header's first.
  public let offset: Int
  /// Whether it covers the addresses too.
  public let hasPseudoHeader: Bool
  /// Whether 0 means none.
  public let mayBeMissing: Bool

  /// - Parameters:
  ///   - transport: the IP protocol.
  ///   - isIPv6: of which family the packet is.
  /// - Returns: nil where it has no such checksum, or is not known.
  @inlinable
  public init?(_ transport: UInt8, isIPv6: Bool) {
    switch transport {
    case 6: offset = 16
    case 17, 33, 136: offset = 6
    case 1 where !isIPv6, 58 where isIPv6: offset = 2
    default: return nil
    }
    hasPseudoHeader = transport != 1
    mayBeMissing = transport == 17
  }
}
