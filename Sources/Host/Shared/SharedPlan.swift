import Channel
import Driver
import Memory

/// What all instances on a function have in common.
struct SharedPlan {
  let interface: NetworkInterface
  /// Bytes of the host's own arena, which is the first in the window.
  let hostArenaBytes: Int
  /// The size of receive segments, and how bytes lie in them.
  let segmentSize: Int
  let isColoured: Bool
  let headerBytes: Int

  /// - Parameter driver: the driver's type, which knows what buffers its devices want.
  init<D: NetworkDriver & ~Copyable>(
    _ driver: D.Type, _ interface: NetworkInterface, hostArenaBytes: Int
  ) {
    self.interface = interface
    self.hostArenaBytes = hostArenaBytes
    segmentSize = D.receiveBufferBytes ?? 2048
    isColoured = D.receiveBufferBytes == nil
    headerBytes = D.receiveHeaderBytes
  }

  /// The interface's Ethernet address as 48 bits.
  var station: UInt64 { interface.macAddress.array.reduce(0) { $0 << 8 | UInt64($1) } }

  /// Who owns the host's own receive segments on a queue.
  func hostLedger(queue: Int, receiveBytes: Int) -> SegmentLedger {
    ledger(queue: queue, receiveBytes: receiveBytes, headerBytes: headerBytes)
  }

  /// The same for an instance: what a device writes before a frame is not copied.
  /// - Parameter record: has the owners' bytes.
  func instanceLedger(
    queue: Int, receiveBytes: Int, record: borrowing PathRecord
  ) -> SegmentLedger {
    ledger(queue: queue, receiveBytes: receiveBytes, headerBytes: 0, record.ownerBytes)
  }

  /// Bytes of receive segments on each queue.
  func share(of receiveBytes: Int) -> Int { receiveBytes / interface.queuePairs / 4096 * 4096 }

  private func ledger(
    queue: Int, receiveBytes: Int, headerBytes: Int, _ owners: UnsafeMutablePointer<UInt8>? = nil
  ) -> SegmentLedger {
    let share = share(of: receiveBytes)
    return SegmentLedger(
      firstUnit: UInt32(queue * share / Descriptor.unit), byteCount: share,
      segmentSize: segmentSize, isColoured: isColoured, headerBytes: headerBytes, owners: owners)
  }
}
