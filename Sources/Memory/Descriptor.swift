/// What crosses every boundary in Martlet, from the driver to a stack instance: 16 plain bytes that name one piece
/// of a packet, or carry its offload metadata. Never a pointer.
///
/// A packet is one or more consecutive slots. With offloads, its first slot is metadata (``Flags/offload``, see
/// ``Offload``); then come its pieces, all but the last marked ``Flags/more``.
@frozen
public struct Descriptor: BitwiseCopyable, Sendable, Equatable {
  /// The segment's first address, in units of ``unit`` bytes from the start of its arena.
  public var segment: UInt32
  /// Bytes from the segment's first address to the first byte of data.
  public var offset: UInt32
  /// Bytes of data.
  public var length: UInt32
  /// What the slot is.
  public var flags: Flags
  /// Chosen by whoever sends a packet; comes back when the device has done with it. Of the packet's first slot. One
  /// packet's at a time.
  public var tag: UInt16

  /// The most slots that one packet may have, metadata included: 64 KiB in segments of 2 KiB, and some.
  @inlinable public static var maximumSlots: Int { @_noLocks get { 64 } }

  /// 1024 bytes, the smallest segment.
  @inlinable public static var unit: Int { @_noLocks get { 1024 } }

  /// Bytes before the data of a packet with ``Flags/headroom``.
  @inlinable public static var headroom: Int { 16 }

  /// - Parameters:
  ///   - segment: in units of ``unit`` bytes from the arena's start.
  ///   - offset: bytes from the segment's first address to the data.
  ///   - length: bytes of data.
  ///   - flags: what the slot is.
  ///   - tag: of a packet that is sent.
  @inlinable @_noLocks
  public init(
    segment: UInt32, offset: UInt32 = 0, length: UInt32 = 0,
    flags: Flags = Flags(rawValue: 0), tag: UInt16 = 0
  ) {
    self.segment = segment
    self.offset = offset
    self.length = length
    self.flags = flags
    self.tag = tag
  }

  /// Bytes from the arena's start to the first byte of data. Cannot overflow: 2^32 units and 2^32 bytes fit in 43 bits.
  @inlinable
  public var position: UInt64 {
    @_noLocks get { UInt64(segment) &* 1024 &+ UInt64(offset) }
  }

  /// Segment and offset in one word, for a ring's private record of what was posted.
  @inlinable
  public var cookie: UInt64 { UInt64(segment) &<< 32 | UInt64(offset) }

  /// What a ring's record says was posted.
  @inlinable
  public init(cookie: UInt64, length: UInt32 = 0) {
    self.init(
      segment: UInt32(truncatingIfNeeded: cookie &>> 32),
      offset: UInt32(truncatingIfNeeded: cookie), length: length)
  }

  /// What a slot is. Raw values cross process boundaries: they do not change.
  @frozen
  public struct Flags: OptionSet, BitwiseCopyable, Sendable {
    /// The set's bits.
    public var rawValue: UInt16
    /// - Parameter rawValue: bits; those without a name mean nothing.
    @inlinable @_noLocks public init(rawValue: UInt16) { self.rawValue = rawValue }
    /// Whether all of `other` is in the set: the library's own needs metadata in debug builds.
    @inlinable @_noLocks public func contains(_ other: Flags) -> Bool {
      rawValue & other.rawValue == other.rawValue
    }
    /// Another piece of the same packet follows.
    @inlinable public static var more: Flags { @_noLocks get { Flags(rawValue: 1 << 0) } }
    /// This slot is an ``Offload``, not a piece.
    @inlinable public static var offload: Flags { @_noLocks get { Flags(rawValue: 1 << 1) } }
    /// Receive: the device has checked the transport checksum.
    @inlinable public static var checksumValid: Flags { Flags(rawValue: 1 << 2) }
    /// Transmit: the ``Descriptor/headroom`` bytes before the data are the driver's to write until the packet is
    /// completed, so that what the device reads first can lie there. For a sender in the driver's own process that is
    /// trusted as the driver is: whoever could write these bytes too could change what the device has been told after it
    /// was checked. A host takes the flag off everything that an instance sends. A driver need not make use of it.
    @inlinable public static var headroom: Flags { Flags(rawValue: 1 << 3) }
    /// A packet ends with this piece and another one follows, in one aggregate (``Burst/joinPackets(from:)``): only
    /// together with ``more``.
    @inlinable public static var aggregate: Flags { @_noLocks get { Flags(rawValue: 1 << 4) } }
  }
}

/// Offload metadata of one packet, in the sense of virtio_net_hdr (virtio 1.2, 5.1.6), laid out over a ``Descriptor``.
@frozen
public struct Offload: BitwiseCopyable, Sendable, Equatable {
  /// None, or how the packet is cut into transport segments.
  @frozen
  public enum Segmentation: UInt8, BitwiseCopyable, Sendable {
    /// It is not cut.
    case none = 0
    /// TCP over IPv4.
    case tcp4 = 1
    /// UDP datagrams cut into IP fragments; no driver of this project sends such packets.
    case udp = 3
    /// TCP over IPv6.
    case tcp6 = 4
  }

  /// How the packet is cut, or that it is not.
  public var segmentation: Segmentation
  /// The transport checksum has to be completed from `checksumStart`, stored at `checksumStart + checksumOffset`.
  public var needsChecksum: Bool
  /// Bytes of headers before the payload (a hint).
  public var headerLength: UInt16
  /// Payload bytes of each segment that is cut.
  public var segmentSize: UInt16
  /// Bytes from the frame's start to where the sum begins: the transport header.
  public var checksumStart: UInt16
  /// Bytes from there to the 16-bit field that takes the sum.
  public var checksumOffset: UInt16
  /// The packet's tag (``Descriptor/tag``).
  public var tag: UInt16

  /// - Parameters:
  ///   - segmentation: how the packet is cut.
  ///   - needsChecksum: whether the transport checksum has to be completed.
  ///   - headerLength: bytes of headers before the payload.
  ///   - segmentSize: payload bytes of each segment.
  ///   - checksumStart: bytes from the frame's start.
  ///   - checksumOffset: bytes from there.
  ///   - tag: the packet's tag.
  @inlinable @_noLocks
  public init(
    segmentation: Segmentation = .none, needsChecksum: Bool = false, headerLength: UInt16 = 0,
    segmentSize: UInt16 = 0, checksumStart: UInt16 = 0, checksumOffset: UInt16 = 0, tag: UInt16 = 0
  ) {
    self.segmentation = segmentation
    self.needsChecksum = needsChecksum
    self.headerLength = headerLength
    self.segmentSize = segmentSize
    self.checksumStart = checksumStart
    self.checksumOffset = checksumOffset
    self.tag = tag
  }

  /// The metadata in a slot, or nil where the slot is none or names a segmentation that does not exist.
  @inlinable
  public init?(_ slot: Descriptor) {
    guard slot.flags.contains(.offload),
      let segmentation = Segmentation(rawValue: UInt8(truncatingIfNeeded: slot.length >> 16))
    else { return nil }
    self.init(
      segmentation: segmentation,
      needsChecksum: slot.length >> 24 & 1 != 0,
      headerLength: UInt16(truncatingIfNeeded: slot.length),
      segmentSize: UInt16(truncatingIfNeeded: slot.segment >> 16),
      checksumStart: UInt16(truncatingIfNeeded: slot.offset),
      checksumOffset: UInt16(truncatingIfNeeded: slot.offset >> 16),
      tag: slot.tag)
  }

  /// The slot that stands before the packet's pieces.
  @inlinable
  public var slot: Descriptor {
    Descriptor(
      segment: UInt32(segmentSize) << 16,
      offset: UInt32(checksumStart) | UInt32(checksumOffset) << 16,
      length: UInt32(headerLength) | UInt32(segmentation.rawValue) << 16
        | (needsChecksum ? 1 << 24 : 0),
      flags: Descriptor.Flags.offload.union(.more), tag: tag)
  }
}
