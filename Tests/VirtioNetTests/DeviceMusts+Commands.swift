import CLinux
import Driver
import Glibc
import Rings
import Testing
import Virtio
import VirtioNet
import VirtioNetDevice

/// What virtio 1.2 asks of a device, broken by one: 5.1.6.5, commands. Each is waited for with a limit.
@Suite struct CommandMustTests {
  /// What the device does at the doorbell of a command: its queue, and the byte of the acknowledgement.
  typealias Answer = (inout HostileVirtqueue, UnsafeMutableRawPointer) -> Void

  private func failure(
    _ format: VirtioFeatures, _ answer: @escaping Answer
  ) throws -> (HostileRig, DriverError?) {
    let rig = try HostileRig(format)
    try rig.start(ringSize: 64)
    var queue = try rig.queue(2)
    rig.registers.writes = { access, value in
      if access.bar == 4 && access.offset >= 0x3000 && value == 2, let buffer = queue.buffer() {
        // The driver's buffer for commands: a page, with the acknowledgement at its end.
        answer(&queue, buffer + 4095)
      }
      return true
    }
    return (rig, command(rig))
  }

  private func command(_ rig: HostileRig) -> DriverError? {
    do throws(DriverError) {
      try rig.command()
      return nil
    } catch {
      return error
    }
  }

  @Test(arguments: formats) func aCommandThatIsDone(format: VirtioFeatures) throws {
    let (rig, error) = try failure(format) { queue, acknowledgement in
      volatile_store8(acknowledgement, 0)
      queue.use(length: 1, advance: queue.isPacked ? 2 : 1)
    }
    #expect(error == nil)
    try rig.recover()
  }

  /// No byte is written, and the device says that it wrote 0: the acknowledgement is what the driver put there.
  @Test(arguments: formats, [nil, 1, 2, 0x80, 0xff] as [UInt8?])
  func acknowledgementsThatAreNone(format: VirtioFeatures, byte: UInt8?) throws {
    let (rig, error) = try failure(format) { queue, acknowledgement in
      if let byte { volatile_store8(acknowledgement, byte) }
      queue.use(length: byte == nil ? 0 : 1, advance: queue.isPacked ? 2 : 1)
    }
    #expect(error == .commandFailed("promiscuous mode (answer \(byte ?? 0xff))"))
    try rig.recover()
  }

  @Test(arguments: formats) func aCommandThatIsNeverAnswered(format: VirtioFeatures) throws {
    let before = time(nil)
    let (rig, error) = try failure(format) { _, _ in }
    #expect(error == .commandFailed("promiscuous mode: the device does not answer"))
    // The buffer may still be written: no other command is put there.
    #expect(command(rig) == .commandFailed("promiscuous mode: one before it is unanswered"))
    #expect(time(nil) - before <= 3)
    try rig.recover()
  }

  @Test(arguments: formats) func anotherCommandIsAnswered(format: VirtioFeatures) throws {
    let (rig, error) = try failure(format) { queue, _ in queue.use(33, length: 1) }
    #expect(error == .ring(queue: -1, .idNotOutstanding(id: 33)))
    #expect(command(rig) == .commandFailed("promiscuous mode: one before it is unanswered"))
    try rig.recover()
  }

  @Test(arguments: formats) func moreIsWrittenThanAByte(format: VirtioFeatures) throws {
    let (rig, error) = try failure(format) { queue, _ in queue.use(length: 4096) }
    #expect("\(error!)".contains("4096 bytes in buffer"))
    try rig.recover()
  }

  /// The answers that come after the one that was asked for are none.
  @Test(arguments: formats) func aCommandIsAnsweredTwice(format: VirtioFeatures) throws {
    let (rig, error) = try failure(format) { queue, acknowledgement in
      volatile_store8(acknowledgement, 0)
      let id = queue.due()
      queue.use(length: 1, advance: queue.isPacked ? 2 : 1)
      queue.use(id, length: 1)
    }
    // Split: the index says that two were used of one.
    #expect(format.contains(.packedRing) ? error == nil : error != nil)
    try rig.recover()
  }
}
