/// How a device broke the contract of a ring. The clauses are of virtio 1.2, for split and for packed rings.
public enum RingError: Error, Sendable, Equatable {
  /// 2.7.8, 2.8.22: what was used names a descriptor or buffer that does not exist.
  case idOutOfRange(id: UInt32, size: Int)
  /// 2.7.8, 2.8.22: what was used names a descriptor or buffer that is not the head of anything outstanding.
  case idNotOutstanding(id: UInt32)
  /// 2.7.8: the used index moved further than buffers are outstanding, or backwards.
  case indexJump(from: UInt16, to: UInt16, outstanding: Int)
  /// More bytes were written than the buffer has (2.7.8.2, 2.8.4; of other rings as well).
  case lengthBeyondBuffer(id: UInt32, length: UInt32, posted: UInt32)
  /// 2.7.9, 2.8.8: with VIRTIO_F_IN_ORDER, used before one that was made available earlier and was not.
  case outOfOrder(id: UInt32, expected: UInt32)
}

extension RingError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .idOutOfRange(let id, let size):
      "device used descriptor \(id) of a ring of \(size) (virtio 1.2, 2.7.8, 2.8.22)"
    case .idNotOutstanding(let id):
      "device used descriptor \(id), which it does not hold (virtio 1.2, 2.7.8, 2.8.22)"
    case .indexJump(let from, let to, let outstanding):
      "used index went from \(from) to \(to) with \(outstanding) buffers outstanding (virtio 1.2, 2.7.8)"
    case .lengthBeyondBuffer(let id, let length, let posted):
      "device reports \(length) bytes in buffer \(id) of \(posted)"
    case .outOfOrder(let id, let expected):
      "device used \(id) before \(expected) though in-order was agreed (virtio 1.2, 2.7.9, 2.8.8)"
    }
  }
}
