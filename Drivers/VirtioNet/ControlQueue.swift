import Driver
import Memory
import Rings
import Virtio
import VirtioTransports

/// Takes commands, one at a time.
protocol CommandQueue: AnyObject {
  /// - Throws: when the device refuses the command or does not answer within a second.
  func send(
    _ commandClass: UInt8, _ command: UInt8, _ data: [UInt8], as name: String
  ) throws(DriverError)
}

/// The control virtqueue (virtio 1.2, 5.1.6.5), of the format that was negotiated: each command is waited for, with a
/// limit.
final class ControlQueue<Ring: Virtqueue & ~Copyable>: CommandQueue {
  private var ring: Ring
  private let doorbell: QueueDoorbell
  /// Command at 0, acknowledgement at its end: the driver's until it is made available, then the device's.
  private let buffer: DMARange

  private var answers = Burst(capacity: 1)

  init(ring: consuming Ring, doorbell: QueueDoorbell, buffer: DMARange) {
    self.ring = ring
    self.doorbell = doorbell
    self.buffer = buffer
  }

  func send(
    _ commandClass: UInt8, _ command: UInt8, _ data: [UInt8], as name: String
  ) throws(DriverError) {
    guard 2 + data.count <= buffer.byteCount - 1 else {
      throw .commandFailed("\(name): \(data.count) bytes are too many")
    }
    let acknowledgement = buffer.byteCount - 1
    buffer.store8(commandClass, at: 0)
    buffer.store8(command, at: 1)
    for (index, byte) in data.enumerated() { buffer.store8(byte, at: 2 + index) }
    buffer.store8(0xff, at: acknowledgement)
    // A command that was never answered may still hold the buffer: the queue is of no use then.
    guard ring.outstanding == 0 else {
      throw .commandFailed("\(name): one before it is unanswered")
    }
    var chain = ring.beginChain(iova: buffer.iova, byteCount: UInt32(2 + data.count))
    ring.extend(
      &chain, iova: buffer.iova + UInt64(acknowledgement), byteCount: 1, writable: true)
    ring.finish(chain, slot: Descriptor(segment: 0))
    ring.publish()
    if ring.shouldNotify() { doorbell.ring() }
    let limit = Deadline(milliseconds: 1000)
    while true {
      do throws(RingError) {
        try ring.takeUsed(into: &answers, limit: 1)
      } catch {
        throw .ring(queue: -1, error)
      }
      if answers.count > 0 { break }
      if limit.hasPassed {
        throw .commandFailed("\(name): the device does not answer")
      }
      limit.pause()
    }
    answers.removeAll()
    let answer = buffer.load8(at: acknowledgement)
    guard answer == VirtioNetCommand.acknowledged else {
      throw .commandFailed("\(name) (answer \(answer))")
    }
  }
}
