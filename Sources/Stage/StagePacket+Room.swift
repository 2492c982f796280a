import Channel
import Glibc
import Memory

/// Bytes that come into a head and go out of it. The shorter part of the head is moved, into the room before it or behind.
extension StagePacket {
  /// Bytes that can be inserted.
  @inlinable public var room: Int { Int(place.roomBefore) &+ Int(place.roomBehind) }

  /// Makes place for bytes, which are 0 then, before the byte that is at `offset`; at the end where it is the head's length.
  ///
  /// What ``metadata`` says of offsets moves with the bytes. The lengths and checksums in the packet's headers are the
  /// stage's affair.
  /// - Returns: false where there is no room on one side of the head, where the packet would be longer than its metadata
  ///   can say, or where the bytes would part a transport header's beginning from its checksum; nothing is changed then. Behind
  ///   a head that is not all of the packet nothing can be added.
  public mutating func insert(_ count: Int, at offset: Int) -> Bool {
    guard count >= 0, offset >= 0, offset <= byteCount, count <= 0xffff else { return false }
    if isPartial && offset == byteCount && count > 0 { return false }
    guard let metadata = metadata.inserting(count, at: offset) else { return false }
    let behind = byteCount &- offset
    let fitsBefore = count <= Int(place.roomBefore)
    // What lies behind the head in memory is not the packet's unseen rest: that lies elsewhere.
    let fitsBehind = count <= Int(place.roomBehind)
    guard fitsBefore || fitsBehind else { return false }
    if fitsBefore && (offset <= behind || !fitsBehind) {
      memmove(start - count, start, offset)
      place.position &-= UInt64(count)
      place.roomBefore &-= UInt32(count)
    } else {
      memmove(start + offset + count, start + offset, behind)
      place.roomBehind &-= UInt32(count)
    }
    place.byteCount &+= UInt32(count)
    memset(start + offset, 0, count)
    place.metadata = metadata
    return true
  }

  /// Takes bytes out.
  /// - Returns: false where there are not as many, or where they are part of a transport header up to its checksum which the
  ///   device is to complete; nothing is changed then.
  public mutating func remove(_ count: Int, at offset: Int) -> Bool {
    guard has(count, at: offset), count <= 0xffff,
      let metadata = metadata.removing(count, at: offset)
    else { return false }
    let behind = byteCount &- offset &- count
    if offset <= behind {
      memmove(start + count, start, offset)
      place.position &+= UInt64(count)
      place.roomBefore &+= UInt32(count)
    } else {
      memmove(start + offset, start + offset + count, behind)
      place.roomBehind &+= UInt32(count)
    }
    place.byteCount &-= UInt32(count)
    place.metadata = metadata
    return true
  }
}

extension Offload {
  /// Where the checksum is stored, and where its bytes end; nil where none is wanted.
  private var checksumEnd: Int? {
    needsChecksum ? Int(checksumStart) + Int(checksumOffset) + 2 : nil
  }

  fileprivate func inserting(_ count: Int, at offset: Int) -> Offload? {
    var result = self
    if let checksumEnd {
      if offset <= Int(checksumStart) {
        guard let start = UInt16(exactly: Int(checksumStart) + count) else { return nil }
        result.checksumStart = start
      } else if offset < checksumEnd {
        return nil
      }
    }
    if headerLength != 0 && offset < Int(headerLength) {
      guard let length = UInt16(exactly: Int(headerLength) + count) else { return nil }
      result.headerLength = length
    }
    return result
  }

  fileprivate func removing(_ count: Int, at offset: Int) -> Offload? {
    var result = self
    if let checksumEnd {
      if offset + count <= Int(checksumStart) {
        result.checksumStart -= UInt16(count)
      } else if offset < checksumEnd && count > 0 {
        return nil
      }
    }
    if headerLength != 0 && offset < Int(headerLength) {
      result.headerLength -= UInt16(min(count, Int(headerLength) - offset))
    }
    return result
  }
}
