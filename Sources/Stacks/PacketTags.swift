/// The tags of packets that the device may still read, and what each keeps until the device has done with it. A fixed
/// number, made once. One thread.
@frozen
public struct PacketTags<Packet: ~Copyable>: ~Copyable {
  // Invariant: `packets` and `free` have `count` initialised elements; the first `freeCount` of `free` are the tags
  // without a packet, each once.
  @usableFromInline let packets: UnsafeMutablePointer<Packet?>
  @usableFromInline let free: UnsafeMutablePointer<UInt16>
  @usableFromInline var freeCount: Int
  /// Tags in all.
  public let count: Int

  /// - Parameter count: packets that can be under way at the same time, 1 to 65536.
  @inlinable
  public init(count: Int) {
    precondition(count > 0 && count <= 1 << 16)
    self.count = count
    packets = .allocate(capacity: count)
    for index in 0..<count { (packets + index).initialize(to: nil) }
    free = .allocate(capacity: count)
    for index in 0..<count { (free + index).initialize(to: UInt16(count - 1 - index)) }
    freeCount = count
  }

  @inlinable
  deinit {
    packets.deinitialize(count: count)
    packets.deallocate()
    free.deallocate()
  }

  /// Tags without a packet.
  @inlinable
  public var available: Int { freeCount }

  /// The tag that the next packet gets; nil where all are taken.
  @inlinable
  public var next: UInt16? { freeCount == 0 ? nil : free[freeCount &- 1] }

  /// A packet goes to the device under the tag ``next``, of which there must be one.
  @inlinable
  public mutating func take(for packet: consuming Packet) {
    precondition(freeCount > 0)
    freeCount &-= 1
    packets[Int(free[freeCount])] = consume packet
  }

  /// The device has done with the packet of a tag, which is free again.
  /// - Returns: nil where no packet has it.
  @inlinable
  public mutating func finish(_ tag: UInt16) -> Packet? {
    guard Int(tag) < count, let packet = packets[Int(tag)].take() else { return nil }
    free[freeCount] = tag
    freeCount &+= 1
    return packet
  }
}
