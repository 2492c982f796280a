import Driver
import Memory
import Steering

/// What the interface can send, and whether a packet's metadata agrees with its headers.
@usableFromInline
struct FrameLimits: Sendable {
  let maximumBytes: Int
  let offloads: NetworkInterface.Offloads

  static let minimumBytes = 14

  init(_ interface: NetworkInterface) {
    // The Ethernet header, and a VLAN tag.
    maximumBytes = interface.mtu + 18
    offloads = interface.offloads
  }

  enum Verdict {
    case fits
    /// Not to be sent.
    case dropped
    /// Against the rules: it reaches outside of the packet, or asks for what is not offered.
    case offence
  }

  /// Whether the device may be told this of the packet. What it changes in the packet must be what was looked at: a sum
  /// that is stored elsewhere, or segments whose headers are cut short, would change the addresses and ports that have just
  /// been checked.
  /// - Parameters:
  ///   - metadata: the instance's; its header length becomes the one that was found.
  ///   - inspected: bytes of the packet that the instance can no longer change.
  func check(
    _ metadata: inout Offload, _ packet: PacketHeader, byteCount: Int, inspected: Int
  ) -> Verdict {
    let isCut = metadata.segmentation != .none
    if !isCut && byteCount > maximumBytes { return .dropped }
    if !metadata.needsChecksum { return isCut ? .offence : .fits }
    guard offloads.contains(.transmitChecksum) else { return .offence }
    let start = Int(metadata.checksumStart)
    let end = start &+ Int(metadata.checksumOffset) &+ 2
    if end > byteCount { return .offence }
    guard packet.fragment == .none, start == Int(packet.transportOffset), start > 0,
      let field = Self.checksumField(packet), Int(metadata.checksumOffset) == field,
      end <= inspected
    else { return .dropped }
    metadata.headerLength = packet.transportOffset &+ max(packet.tcpHeaderBytes, 8)
    return isCut ? checkSegmentation(metadata, packet, byteCount, inspected) : .fits
  }

  private func checkSegmentation(
    _ metadata: Offload, _ packet: PacketHeader, _ byteCount: Int, _ inspected: Int
  ) -> Verdict {
    let isIPv6 = metadata.segmentation == .tcp6
    guard metadata.segmentation != .udp, metadata.segmentSize > 0,
      offloads.contains(isIPv6 ? .transmitTCP6 : .transmitTCP4)
    else { return .offence }
    guard packet.kind == (isIPv6 ? .ipv6 : .ipv4), packet.transport == 6,
      Int(metadata.headerLength) <= inspected, byteCount <= 65535 + 18
    else { return .dropped }
    return .fits
  }

  /// Bytes from the transport header to its checksum.
  private static func checksumField(_ packet: PacketHeader) -> Int? {
    switch packet.transport {
    case 6: 16
    case 17: 6
    case 58: 2
    default: nil
    }
  }
}
