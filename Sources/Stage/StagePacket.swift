import Channel
import Memory
import Steering

/// A packet as a stage sees it: the bytes of its head, where they lie in the driver host's memory, and what is said of it.
///
/// Other processes may have the same memory: what is read twice can differ, so that what was checked should be kept
/// (``header``), and a change is seen by those who look at the packet later. No access leaves the head: offsets that are
/// not in it end the stage.
public struct StagePacket: ~Copyable {
  // Invariant: `roomBefore` bytes before `position`, `byteCount` bytes from there and `roomBehind` bytes behind them lie in
  // the arena, which stays mapped as long as there are packets.
  @usableFromInline let arena: UnsafeMutableRawPointer
  @usableFromInline var place: StagedPacket
  @usableFromInline let queue: UInt16

  @inlinable
  init(_ place: StagedPacket, in arena: UnsafeMutableRawPointer, queue: UInt16) {
    self.arena = arena
    self.place = place
    self.queue = queue
  }

  /// Which way it goes.
  @inlinable public var way: StagedPacket.Way { place.way }
  /// Bytes of the head.
  @inlinable public var byteCount: Int { Int(place.byteCount) }
  /// Bytes of the whole packet, with those that the stage does not see.
  @inlinable public var totalBytes: Int { Int(place.byteCount) &+ Int(place.unseenBytes) }
  /// Whether bytes follow that the stage does not see.
  @inlinable public var isPartial: Bool { place.unseenBytes != 0 }
  /// What is left to the device, or what it has done: ``/Memory/Offload/checksumStart`` and the sizes are a sender's word.
  @inlinable public var metadata: Offload {
    get { place.metadata }
    set { place.metadata = newValue }
  }
  /// The device has checked the transport checksum.
  @inlinable public var isChecked: Bool {
    get { place.isChecked }
    set { place.isChecked = newValue }
  }
  /// What a rule has said of it; 0 for nothing.
  @inlinable public var mark: UInt16 {
    get { place.mark }
    set { place.mark = newValue }
  }

  /// Names the packet while it is held.
  @inlinable public var token: HeldPacket { HeldPacket(queue: queue, number: place.number) }

  @inlinable @inline(__always)
  var start: UnsafeMutableRawPointer { arena + Int(place.position) }

  // MARK: Bytes

  /// Whether the head has so many bytes from an offset on.
  @inlinable
  public func has(_ count: Int, at offset: Int) -> Bool {
    offset >= 0 && count >= 0 && offset <= byteCount && count <= byteCount &- offset
  }

  /// The head's bytes.
  @inlinable
  public var bytes: Span<UInt8> {
    @_lifetime(borrow self)
    get {
      let bytes = UnsafeRawBufferPointer(start: start, count: byteCount)
      // Invariant: the span lives no longer than the borrow of the packet.
      return _overrideLifetime(
        Span(_unsafeElements: bytes.assumingMemoryBound(to: UInt8.self)), borrowing: self)
    }
  }

  /// The head's bytes, to be written.
  @inlinable
  public var mutableBytes: MutableSpan<UInt8> {
    @_lifetime(&self)
    mutating get {
      let bytes = UnsafeMutableRawBufferPointer(start: start, count: byteCount)
      // Invariant: as above.
      return _overrideLifetime(
        MutableSpan(_unsafeElements: bytes.assumingMemoryBound(to: UInt8.self)), mutating: &self)
    }
  }

  @inlinable @inline(__always)
  func check(_ count: Int, _ offset: Int) {
    precondition(has(count, at: offset), "a stage went beyond its packet")
  }

  /// The byte at an offset.
  @inlinable
  public func number8(at offset: Int) -> UInt8 {
    check(1, offset)
    return start.load(fromByteOffset: offset, as: UInt8.self)
  }

  /// Two bytes in network order.
  @inlinable
  public func number16(at offset: Int) -> UInt16 {
    check(2, offset)
    return UInt16(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  /// Four bytes in network order.
  @inlinable
  public func number32(at offset: Int) -> UInt32 {
    check(4, offset)
    return UInt32(bigEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  /// Writes a byte.
  @inlinable
  public mutating func store8(_ value: UInt8, at offset: Int) {
    check(1, offset)
    start.storeBytes(of: value, toByteOffset: offset, as: UInt8.self)
  }

  /// Writes two bytes in network order. No checksum follows: see ``replace16(_:at:_:)``.
  @inlinable
  public mutating func store16(_ value: UInt16, at offset: Int) {
    check(2, offset)
    start.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt16.self)
  }

  /// Writes four bytes in network order.
  @inlinable
  public mutating func store32(_ value: UInt32, at offset: Int) {
    check(4, offset)
    start.storeBytes(of: value.bigEndian, toByteOffset: offset, as: UInt32.self)
  }

  /// What its headers say, read anew each time: a value that does not change. Its offsets are those of bytes that are there,
  /// as long as none are inserted or removed.
  @inlinable
  public var header: PacketHeader {
    PacketHeader(frame: UnsafeRawPointer(start), byteCount: byteCount)
  }
}

/// A packet that a stage holds, by its number.
@frozen
public struct HeldPacket: Hashable, Sendable, BitwiseCopyable {
  @usableFromInline let queue: UInt16
  @usableFromInline let number: UInt16

  @inlinable
  init(queue: UInt16, number: UInt16) {
    self.queue = queue
    self.number = number
  }
}

extension StagedPacket.Way {
  /// Receive for transmit and the other way round.
  @inlinable public var opposite: StagedPacket.Way {
    switch self {
    case .receive: .transmit
    case .transmit: .receive
    case .none: .none
    }
  }
}
