import Capture
import Glibc

/// A capture at both points of the wire, for as long as the process lives. Its filter takes no packet of the loops.
final class LoopCapture {
  private let area: CaptureArea
  private let readers: CaptureReaders

  /// `udp port 53`, as libpcap compiles it: of all short filters the one that looks longest at a datagram for another port.
  private static let filter: [FilterInstruction] = [
    .init(code: 40, operand: 12), .init(code: 21, jumpTrue: 0, jumpFalse: 6, operand: 0x86dd),
    .init(code: 48, operand: 20), .init(code: 21, jumpTrue: 0, jumpFalse: 15, operand: 17),
    .init(code: 40, operand: 54), .init(code: 21, jumpTrue: 12, jumpFalse: 0, operand: 53),
    .init(code: 40, operand: 56), .init(code: 21, jumpTrue: 10, jumpFalse: 11, operand: 53),
    .init(code: 21, jumpTrue: 0, jumpFalse: 10, operand: 0x800), .init(code: 48, operand: 23),
    .init(code: 21, jumpTrue: 0, jumpFalse: 8, operand: 17), .init(code: 40, operand: 20),
    .init(code: 69, jumpTrue: 6, jumpFalse: 0, operand: 0x1fff), .init(code: 177, operand: 14),
    .init(code: 72, operand: 14), .init(code: 21, jumpTrue: 2, jumpFalse: 0, operand: 53),
    .init(code: 72, operand: 16), .init(code: 21, jumpTrue: 0, jumpFalse: 1, operand: 53),
    .accept(262_144), .accept(0),
  ]

  init() throws {
    area = try CaptureArea(queues: 1)
    readers = try CaptureReaders(queues: 1)
    var order = CaptureOrder()
    order.session = 1
    order.ringSize = 1 << 20
    order.want(.wireReceive)
    order.want(.wireTransmit)
    try area.begin(&order, program: Self.filter, slot: 0)
  }

  /// Descriptors for a host, which closes them.
  var copies: (area: Int32, readers: Int32) { (dup(area.descriptor), dup(readers.descriptor)) }

  /// Of a path; what it points at stays mapped.
  func tap(_ packets: UnsafeRawPointer, _ byteCount: Int) -> CaptureTap {
    _ = Unmanaged.passRetained(self)
    return CaptureTap(
      area: area, readers: readers, queue: 0, packets: packets, byteCount: byteCount)
  }
}
