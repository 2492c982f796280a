/// Why bytes cannot be sent from where they are. One line with the facts.
public enum SendBufferError: Error, Equatable, Sendable {
  /// No segment of at least so many bytes is free, or others wait for one.
  case exhausted(needed: Int)
  /// No segment is ever so large, or none is needed.
  case badSize(needed: Int, limit: Int)
  /// The address, as a number, lies in no segment of the pool.
  case notInPool(address: UInt)
  /// So many bytes from the address do not end in its segment, of which `left` bytes follow.
  case crossesEnd(address: UInt, byteCount: Int, left: Int)
  /// Nobody has a reference to the address's segment.
  case notAllocated(address: UInt)
}

extension SendBufferError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .exhausted(let needed):
      "no segment of \(needed) bytes is free: wait for one, or give the arena more memory"
    case .badSize(let needed, let limit):
      "a segment has 1 to \(limit) bytes, \(needed) were asked for"
    case .notInPool(let address):
      "address 0x\(String(address, radix: 16)) lies in no segment: send from a SendBuffer"
    case .crossesEnd(let address, let byteCount, let left):
      "\(byteCount) bytes at 0x\(String(address, radix: 16)) cross their segment's end, which is \(left) bytes away"
    case .notAllocated(let address):
      "the segment at 0x\(String(address, radix: 16)) is free: keep its SendBuffer until it is written"
    }
  }
}
