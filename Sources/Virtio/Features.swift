/// Feature bits of virtio 1.2: chapter 6 and, for the network device, 5.1.3.
public struct VirtioFeatures: OptionSet, Sendable, Hashable {
  public var rawValue: UInt64
  @inlinable public init(rawValue: UInt64) { self.rawValue = rawValue }
  @inlinable public init(bit: Int) { rawValue = 1 << UInt64(bit) }

  @inlinable public static var checksum: VirtioFeatures { VirtioFeatures(bit: 0) }
  @inlinable public static var guestChecksum: VirtioFeatures { VirtioFeatures(bit: 1) }
  @inlinable public static var controlGuestOffloads: VirtioFeatures { VirtioFeatures(bit: 2) }
  @inlinable public static var mtu: VirtioFeatures { VirtioFeatures(bit: 3) }
  @inlinable public static var macAddress: VirtioFeatures { VirtioFeatures(bit: 5) }
  @inlinable public static var guestTSO4: VirtioFeatures { VirtioFeatures(bit: 7) }
  @inlinable public static var guestTSO6: VirtioFeatures { VirtioFeatures(bit: 8) }
  @inlinable public static var guestECN: VirtioFeatures { VirtioFeatures(bit: 9) }
  @inlinable public static var guestUFO: VirtioFeatures { VirtioFeatures(bit: 10) }
  @inlinable public static var hostTSO4: VirtioFeatures { VirtioFeatures(bit: 11) }
  @inlinable public static var hostTSO6: VirtioFeatures { VirtioFeatures(bit: 12) }
  @inlinable public static var hostECN: VirtioFeatures { VirtioFeatures(bit: 13) }
  @inlinable public static var hostUFO: VirtioFeatures { VirtioFeatures(bit: 14) }
  @inlinable public static var mergeableBuffers: VirtioFeatures { VirtioFeatures(bit: 15) }
  @inlinable public static var status: VirtioFeatures { VirtioFeatures(bit: 16) }
  @inlinable public static var controlQueue: VirtioFeatures { VirtioFeatures(bit: 17) }
  @inlinable public static var controlReceive: VirtioFeatures { VirtioFeatures(bit: 18) }
  @inlinable public static var controlVLAN: VirtioFeatures { VirtioFeatures(bit: 19) }
  @inlinable public static var controlReceiveExtra: VirtioFeatures { VirtioFeatures(bit: 20) }
  @inlinable public static var guestAnnounce: VirtioFeatures { VirtioFeatures(bit: 21) }
  @inlinable public static var multiqueue: VirtioFeatures { VirtioFeatures(bit: 22) }
  @inlinable public static var controlMACAddress: VirtioFeatures { VirtioFeatures(bit: 23) }
  @inlinable public static var indirectDescriptors: VirtioFeatures { VirtioFeatures(bit: 28) }
  @inlinable public static var eventIndex: VirtioFeatures { VirtioFeatures(bit: 29) }
  @inlinable public static var version1: VirtioFeatures { VirtioFeatures(bit: 32) }
  @inlinable public static var accessPlatform: VirtioFeatures { VirtioFeatures(bit: 33) }
  @inlinable public static var packedRing: VirtioFeatures { VirtioFeatures(bit: 34) }
  @inlinable public static var inOrder: VirtioFeatures { VirtioFeatures(bit: 35) }
  @inlinable public static var orderPlatform: VirtioFeatures { VirtioFeatures(bit: 36) }
  @inlinable public static var singleRootIOV: VirtioFeatures { VirtioFeatures(bit: 37) }
  @inlinable public static var notificationData: VirtioFeatures { VirtioFeatures(bit: 38) }
  @inlinable public static var ringReset: VirtioFeatures { VirtioFeatures(bit: 40) }
  @inlinable public static var notificationCoalescing: VirtioFeatures { VirtioFeatures(bit: 53) }
  @inlinable public static var speedDuplex: VirtioFeatures { VirtioFeatures(bit: 63) }

  private static let names: [(VirtioFeatures, String)] = [
    (.checksum, "CSUM"), (.guestChecksum, "GUEST_CSUM"),
    (.controlGuestOffloads, "CTRL_GUEST_OFFLOADS"), (.mtu, "MTU"), (.macAddress, "MAC"),
    (.guestTSO4, "GUEST_TSO4"), (.guestTSO6, "GUEST_TSO6"), (.guestECN, "GUEST_ECN"),
    (.guestUFO, "GUEST_UFO"), (.hostTSO4, "HOST_TSO4"), (.hostTSO6, "HOST_TSO6"),
    (.hostECN, "HOST_ECN"), (.hostUFO, "HOST_UFO"), (.mergeableBuffers, "MRG_RXBUF"),
    (.status, "STATUS"), (.controlQueue, "CTRL_VQ"), (.controlReceive, "CTRL_RX"),
    (.controlVLAN, "CTRL_VLAN"), (.controlReceiveExtra, "CTRL_RX_EXTRA"),
    (.guestAnnounce, "GUEST_ANNOUNCE"), (.multiqueue, "MQ"),
    (.controlMACAddress, "CTRL_MAC_ADDR"), (.indirectDescriptors, "INDIRECT_DESC"),
    (.eventIndex, "EVENT_IDX"), (.version1, "VERSION_1"), (.accessPlatform, "ACCESS_PLATFORM"),
    (.packedRing, "RING_PACKED"), (.inOrder, "IN_ORDER"), (.orderPlatform, "ORDER_PLATFORM"),
    (.singleRootIOV, "SR_IOV"), (.notificationData, "NOTIFICATION_DATA"),
    (.ringReset, "RING_RESET"), (.notificationCoalescing, "NOTF_COAL"),
    (.speedDuplex, "SPEED_DUPLEX"),
  ]

  /// Names as in the specification, without their VIRTIO_F_ or VIRTIO_NET_F_.
  public var descriptions: [String] {
    var result: [String] = []
    result.reserveCapacity(Self.names.count)
    for (feature, name) in Self.names where contains(feature) { result.append(name) }
    return result
  }

  /// What each feature needs (5.1.3.1): a device must not offer, a driver not accept, one without the other.
  public static let prerequisites: [(feature: VirtioFeatures, needs: VirtioFeatures)] = [
    (.guestTSO4, .guestChecksum), (.guestTSO6, .guestChecksum), (.guestUFO, .guestChecksum),
    (.hostTSO4, .checksum), (.hostTSO6, .checksum), (.hostUFO, .checksum),
    (.controlReceive, .controlQueue), (.controlVLAN, .controlQueue),
    (.controlReceiveExtra, .controlQueue), (.guestAnnounce, .controlQueue),
    (.multiqueue, .controlQueue), (.controlMACAddress, .controlQueue),
    (.controlGuestOffloads, .controlQueue), (.notificationCoalescing, .controlQueue),
  ]
}
