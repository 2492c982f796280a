/// Feature bits of virtio 1.2: chapter 6 and, for the network device, 5.1.3.
public struct VirtioFeatures: OptionSet, Sendable, Hashable {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }
  public init(bit: Int) { rawValue = 1 << UInt64(bit) }

  public static let checksum = VirtioFeatures(bit: 0)
  public static let guestChecksum = VirtioFeatures(bit: 1)
  public static let controlGuestOffloads = VirtioFeatures(bit: 2)
  public static let mtu = VirtioFeatures(bit: 3)
  public static let macAddress = VirtioFeatures(bit: 5)
  public static let guestTSO4 = VirtioFeatures(bit: 7)
  public static let guestTSO6 = VirtioFeatures(bit: 8)
  public static let guestECN = VirtioFeatures(bit: 9)
  public static let guestUFO = VirtioFeatures(bit: 10)
  public static let hostTSO4 = VirtioFeatures(bit: 11)
  public static let hostTSO6 = VirtioFeatures(bit: 12)
  public static let hostECN = VirtioFeatures(bit: 13)
  public static let hostUFO = VirtioFeatures(bit: 14)
  public static let mergeableBuffers = VirtioFeatures(bit: 15)
  public static let status = VirtioFeatures(bit: 16)
  public static let controlQueue = VirtioFeatures(bit: 17)
  public static let controlReceive = VirtioFeatures(bit: 18)
  public static let controlVLAN = VirtioFeatures(bit: 19)
  public static let controlReceiveExtra = VirtioFeatures(bit: 20)
  public static let guestAnnounce = VirtioFeatures(bit: 21)
  public static let multiqueue = VirtioFeatures(bit: 22)
  public static let controlMACAddress = VirtioFeatures(bit: 23)
  public static let indirectDescriptors = VirtioFeatures(bit: 28)
  public static let eventIndex = VirtioFeatures(bit: 29)
  public static let version1 = VirtioFeatures(bit: 32)
  public static let accessPlatform = VirtioFeatures(bit: 33)
  public static let packedRing = VirtioFeatures(bit: 34)
  public static let inOrder = VirtioFeatures(bit: 35)
  public static let orderPlatform = VirtioFeatures(bit: 36)
  public static let singleRootIOV = VirtioFeatures(bit: 37)
  public static let notificationData = VirtioFeatures(bit: 38)
  public static let ringReset = VirtioFeatures(bit: 40)
  public static let notificationCoalescing = VirtioFeatures(bit: 53)
  public static let speedDuplex = VirtioFeatures(bit: 63)

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
    Self.names.filter { contains($0.0) }.map(\.1)
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
