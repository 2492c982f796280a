import Capture
import Driver
import Memory

/// The memory by which a run's packets are captured, as its driver host has it: as long as the process lives.
final class HostCaptures: Sendable {
  private let area: CaptureArea
  private let readers: CaptureReaders

  /// Takes what was inherited; the descriptors are closed.
  init(area: Int32, readers: Int32, queues: Int) throws(HostError) {
    do throws(MemoryError) {
      self.area = try CaptureArea(adopting: area, queues: queues, isWritable: true)
      self.readers = try CaptureReaders(adopting: readers, queues: queues)
    } catch {
      throw .memory(error.description)
    }
  }

  /// Where a queue thread's packets are captured.
  /// - Parameter packets: what descriptors count from.
  func tap(queue: Int, packets: DMARange) -> CaptureTap {
    CaptureTap(
      area: area, readers: readers, queue: queue, packets: packets.address,
      byteCount: packets.byteCount)
  }
}
