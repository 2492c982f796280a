import CLwIP
import Channel
import Driver
import Glibc
import Memory
import Stacks
import Steering

/// lwIP's network interface: frames between the channel and lwIP, without a copy of payload in either direction.
///
/// A class because lwIP's callbacks find it by its address. One thread and no callback inside an access: what packets
/// change needs no check for exclusive access.
public final class LwIPInterface {
  let netif: UnsafeMutablePointer<CLwIP.netif>
  /// Memory that applications send from.
  public let buffers: SendBufferPool
  var listeners: [Listener] = []
  let environment: InstanceEnvironment
  private let channel: InstanceChannel
  private let arena: UnsafeMutableRawPointer
  private let transmitStart: Int
  @exclusivity(unchecked) private var arenaBytes: Int
  /// Packets that the device may still read: each holds a reference to its pbufs and to the pool's segments that they
  /// point into.
  @exclusivity(unchecked) private var inFlight = PacketTags<UnsafeMutablePointer<pbuf>>(count: 8192)
  @exclusivity(unchecked) private var sending = Burst(capacity: 256)
  @exclusivity(unchecked) private var freed = Burst(capacity: 256)
  @exclusivity(unchecked) private var freedQueue = 0
  /// Taken from lwIP, and for another queue than those that wait in `freed`.
  @exclusivity(unchecked) private var heldSegment: UInt32?
  /// The device completes the checksums of what is sent.
  private let leavesChecksums: Bool
  /// Where the arena is to end.
  private var shrinkTarget: Int?
  /// Which sums lwIP does itself: those that the device does not; and where the device has checked a packet's.
  private let ownChecksums: UInt16
  private let ownChecksumsOfChecked: UInt16
  @exclusivity(unchecked) private var counts = InterfaceCounts()
  @exclusivity(unchecked) private var sendCounts: SendCounts

  private static let segmentUnits: UInt32 = 2

  /// - Parameter arguments: the address that the stack has.
  /// - Throws: where the transmit part is too small for lwIP, or the address is not the instance's.
  public init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel
  ) throws(StackError) {
    self.environment = environment
    guard environment.maySend(from: NetworkAddress(ipv4: arguments.address)) else {
      throw StackError("\(NetworkAddress(ipv4: arguments.address)) is not claimed by this instance")
    }
    self.channel = channel
    arena = environment.arena.address
    arenaBytes = environment.arena.byteCount
    transmitStart = environment.receiveBytes
    // lwIP's heap first, then segments for payload.
    let heapBytes = (martlet_heap_bytes() + 4095) / 4096 * 4096
    guard transmitStart + heapBytes + (1 << 20) <= arenaBytes else {
      throw StackError("the transmit part is too small for lwIP: \(heapBytes) bytes and 1 MiB")
    }
    martlet_set_heap(arena + transmitStart)
    buffers = SendBufferPool(
      SegmentPool(
        arena: arena, range: transmitStart + heapBytes..<arenaBytes,
        maximum: environment.welcome.maximumBytes))
    leavesChecksums = environment.offloads.contains(.transmitChecksum)
    ownChecksums = Self.checksums(leavesThem: leavesChecksums, receiveIsChecked: false)
    ownChecksumsOfChecked = Self.checksums(leavesThem: leavesChecksums, receiveIsChecked: true)
    netif = .allocate(capacity: 1)
    netif.initialize(to: CLwIP.netif())
    let wrappers = UInt32(transmitStart / Descriptor.unit) / Self.segmentUnits
    guard martlet_prepare_wrappers(wrappers, Self.segmentUnits) != 0 else {
      throw StackError("no memory for \(wrappers) packet wrappers")
    }
    sendCounts = SendCounts(environment.counters, from: InterfaceCounts.name(environment.counters))
    lwip_init()
    try start(arguments)
  }

  private func start(_ arguments: InstanceArguments) throws(StackError) {
    let context = Unmanaged.passUnretained(self).toOpaque()
    var any = ip4_addr_t()
    netif_add(
      netif, &any, &any, &any, context,
      { netif in
        guard let netif, let state = netif.pointee.state else { return err_t(ERR_ARG.rawValue) }
        let interface = Unmanaged<LwIPInterface>.fromOpaque(state).takeUnretainedValue()
        interface.configure(netif)
        return err_t(ERR_OK.rawValue)
      }, ethernet_input)
    let mask =
      arguments.prefixLength == 32 ? .max : ~(UInt32.max >> UInt32(arguments.prefixLength))
    martlet_set_ipv4(netif, arguments.address, mask, arguments.gateway)
    try setIPv6Addresses()
    netif_set_default(netif)
    netif_set_up(netif)
    netif_set_link_up(netif)
  }

  /// All instances on a shared NIC have its MAC address, from which an address would be made: there, only those that are
  /// claimed.
  private func setIPv6Addresses() throws(StackError) {
    if environment.welcome.use == .exclusive {
      netif_create_ip6_linklocal_address(netif, 1)
      return
    }
    martlet_forbid_autoconfiguration(netif)
    for claim in environment.welcome.claims {
      switch claim {
      case .address(let address) where address.isIPv6,
        .ports(let address, _, _) where address.isIPv6:
        if martlet_add_ipv6(netif, address.high.bigEndian, address.low.bigEndian) != ERR_OK.rawValue
        {
          throw StackError("lwIP has no room for the address \(address)")
        }
      default: break
      }
    }
  }

  private func configure(_ netif: UnsafeMutablePointer<CLwIP.netif>) {
    netif.pointee.name = (CChar(109), CChar(97))
    netif.pointee.hwaddr_len = 6
    let mac = environment.macAddress
    netif.pointee.hwaddr = (mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
    netif.pointee.mtu = UInt16(min(environment.mtu, 65535))
    netif.pointee.mtu6 = netif.pointee.mtu
    netif.pointee.flags = UInt8(
      NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_MLD6)
    netif.pointee.output = etharp_output
    netif.pointee.output_ip6 = ethip6_output
    netif.pointee.linkoutput = { netif, packet in
      guard let packet, let state = netif?.pointee.state else { return err_t(ERR_ARG.rawValue) }
      return Unmanaged<LwIPInterface>.fromOpaque(state).takeUnretainedValue().output(packet)
    }
    martlet_set_checksums(netif, ownChecksums)
  }

  private static func checksums(leavesThem: Bool, receiveIsChecked: Bool) -> UInt16 {
    var flags = UInt16(NETIF_CHECKSUM_ENABLE_ALL)
    if leavesThem {
      flags &= ~UInt16(NETIF_CHECKSUM_GEN_TCP | NETIF_CHECKSUM_GEN_UDP)
    }
    if receiveIsChecked {
      flags &= ~UInt16(NETIF_CHECKSUM_CHECK_TCP | NETIF_CHECKSUM_CHECK_UDP)
    }
    return flags
  }

  // MARK: Receive

  /// One packet from the channel: wrapped piece by piece and handed to lwIP.
  func input(_ burst: borrowing Burst, _ slots: ClosedRange<Int>, queue: Int) {
    var packet: UnsafeMutablePointer<pbuf>?
    var isChecked = false
    var refused = false
    for index in slots {
      let slot = burst[index]
      if slot.flags.contains(.offload) {
        // A partial checksum comes from this machine: there is no wire that could have harmed the packet.
        if Offload(slot)?.needsChecksum == true { isChecked = true }
        continue
      }
      if slot.flags.contains(.checksumValid) { isChecked = true }
      let end = slot.position + UInt64(slot.length)
      guard end <= UInt64(transmitStart), slot.length <= 65535,
        let piece = martlet_wrap(
          slot.segment, arena + Int(slot.position), UInt16(slot.length))
      else {
        refused = true
        continue
      }
      if let packet { pbuf_cat(packet, piece) } else { packet = piece }
    }
    guard let packet else { return }
    counts.receivedPackets += 1
    counts.receivedBytes += UInt64(martlet_pbuf_total(packet))
    martlet_set_checksums(netif, isChecked ? ownChecksumsOfChecked : ownChecksums)
    if refused || martlet_input(netif, packet) != err_t(ERR_OK.rawValue) {
      counts.receiveDropped += 1
      pbuf_free(packet)
    }
  }

  // MARK: Transmit

  /// lwIP has a frame: one slot for each of its pieces, all in place.
  private func output(_ packet: UnsafeMutablePointer<pbuf>) -> err_t {
    let full = err_t(ERR_MEM.rawValue)
    if sending.room < Descriptor.maximumSlots { channel.ends[0].transmit.push(&sending) }
    guard sending.room >= Descriptor.maximumSlots, let tag = inFlight.next else {
      counts.ringFull += 1
      return full
    }
    guard let placed = inTransmitPart(packet) else { return full }
    let total = martlet_pbuf_total(placed)
    let headers = FrameHeaders(
      UnsafeMutableRawBufferPointer(
        start: placed.pointee.payload, count: Int(placed.pointee.len)))
    if leavesChecksums, let headers {
      sending.append(headers.leaveChecksum(total: total, tag: tag).slot)
    }
    var inPlace = 0
    var piece: UnsafeMutablePointer<pbuf>? = placed
    while let current = piece {
      if current.pointee.len > 0 {
        let position = position(of: current.pointee.payload)
        sending.append(
          Descriptor(
            segment: UInt32(position / 1024), offset: UInt32(position % 1024),
            length: UInt32(current.pointee.len), flags: .more, tag: tag))
        if buffers.retainPacket(at: position) { inPlace += Int(current.pointee.len) }
      }
      piece = current.pointee.next
    }
    sending[sending.count - 1].flags.remove(.more)
    inFlight.take(for: placed)
    counts.sentPackets += 1
    counts.sentBytes += UInt64(total)
    if let start = headers?.tcpHeaderBytes {
      sendCounts.payloadOfLwIP += UInt64(max(0, Int(total) - start - inPlace))
    }
    return err_t(ERR_OK.rawValue)
  }

  /// The packet with one more reference, where all of it lies in the transmit part and it has no more pieces than the
  /// channel takes beside its metadata; otherwise a copy of it that does, counted.
  private func inTransmitPart(
    _ packet: UnsafeMutablePointer<pbuf>
  ) -> UnsafeMutablePointer<pbuf>? {
    var pieces = 0
    var piece: UnsafeMutablePointer<pbuf>? = packet
    while let current = piece {
      let offset = current.pointee.payload - arena
      pieces += 1
      if offset < transmitStart || offset + Int(current.pointee.len) > arenaBytes
        || pieces >= Descriptor.maximumSlots
      {
        guard let copy = pbuf_clone(PBUF_RAW, PBUF_RAM, packet) else { return nil }
        counts.sentCopiedBytes += UInt64(martlet_pbuf_total(copy))
        return copy
      }
      piece = current.pointee.next
    }
    pbuf_ref(packet)
    return packet
  }

  private func position(of payload: UnsafeMutableRawPointer) -> UInt64 {
    UInt64(payload - arena)
  }

  /// The device has done with a packet.
  func complete(tag: UInt16) {
    guard let packet = inFlight.finish(tag) else {
      counts.strayCompletions += 1
      return
    }
    var piece: UnsafeMutablePointer<pbuf>? = packet
    while let current = piece {
      if current.pointee.len > 0 {
        buffers.releasePacket(at: position(of: current.pointee.payload))
      }
      piece = current.pointee.next
    }
    pbuf_free(packet)
  }

  // MARK: Memory

  func grow(to byteCount: Int) {
    arenaBytes = byteCount
    buffers.grow(to: byteCount)
  }

  /// - Returns: whether all that is to go has come back. Packets have references until the device has done with them.
  func beginShrink(to byteCount: Int) -> Bool {
    if shrinkTarget != byteCount {
      buffers.beginShrink(to: byteCount)
      shrinkTarget = byteCount
    }
    return buffers.leavingCount == 0
  }

  func shrink(to byteCount: Int) {
    // Less than was asked for: the rest is handed out again.
    if byteCount != shrinkTarget {
      buffers.grow(to: arenaBytes)
      buffers.beginShrink(to: byteCount)
    }
    let isDone = buffers.finishShrink()
    precondition(isDone)
    shrinkTarget = nil
    arenaBytes = byteCount
  }

  // MARK: Channel

  /// Pushes what lwIP has sent and returns the segments that it has let go of.
  /// - Returns: whether anything moved.
  func flush() -> Bool {
    let before = sending.count
    channel.ends[0].transmit.push(&sending)
    var moved = sending.count != before
    while returnSegments() { moved = true }
    if moved {
      counts.publish(environment.counters, buffers.totalReferences)
      sendCounts.publish(environment.counters, buffers)
    }
    return moved
  }

  /// One burst of segments that lwIP has let go of, to the queue that they came from.
  /// - Returns: whether any could be returned.
  private func returnSegments() -> Bool {
    let share = transmitStart / channel.queues / 4096 * 4096
    var unit: UInt32 = 0
    while freed.room > 0 {
      if let held = heldSegment {
        unit = held
        heldSegment = nil
      } else if martlet_take_freed(&unit) == 0 {
        break
      }
      let queue = min(Int(unit) * Descriptor.unit / share, channel.queues - 1)
      if queue != freedQueue {
        channel.ends[freedQueue].free.push(&freed)
        // Segments of one queue must not follow into the ring of another: they wait for room in their own.
        if !freed.isEmpty {
          heldSegment = unit
          return false
        }
        freedQueue = queue
      }
      freed.append(Descriptor(segment: unit))
    }
    let waiting = freed.count
    channel.ends[freedQueue].free.push(&freed)
    return freed.count < waiting
  }
}
