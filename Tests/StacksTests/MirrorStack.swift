import Channel
import Memory
import Stacks
import Steering

/// A stack that sends every frame back to where it came from, in place: the example of "Writing a stack instance".
struct MirrorStack: StackInstance, ~Copyable {
  /// What waits for room in the rings of one queue. A segment goes back to the queue that it came from.
  private struct Waiting: ~Copyable {
    var sending: Burst
    var returning: Burst
  }

  private let channel: InstanceChannel
  private let arena: UnsafeMutableRawPointer
  private let receiveBytes: UInt64
  // Invariant: one element for each queue, until deinit.
  private let queues: UnsafeMutablePointer<Waiting>
  /// The segment and the queue of each packet that is under way.
  private var inFlight = PacketTags<(segment: UInt32, queue: Int)>(count: 4096)

  init(_ environment: InstanceEnvironment, channel: InstanceChannel) {
    self.channel = channel
    arena = environment.arena.address
    receiveBytes = UInt64(environment.receiveBytes)
    queues = .allocate(capacity: channel.queues)
    // Room for every segment that the instance can have.
    let segments = environment.receiveBytes / Descriptor.unit
    for queue in 0..<channel.queues {
      (queues + queue).initialize(
        to: Waiting(sending: Burst(capacity: segments), returning: Burst(capacity: segments)))
    }
  }

  deinit {
    queues.deinitialize(count: channel.queues)
    queues.deallocate()
  }

  mutating func receive(_ burst: inout Burst, queue: Int) {
    var isFirst = true
    for index in 0..<burst.count {
      let slot = burst[index]
      if slot.flags.contains(.offload) { continue }
      let isLast = !slot.flags.contains(.more)
      // The host is not believed: what lies outside of the receive part is neither read nor sent.
      let isInside = slot.position + UInt64(slot.length) <= receiveBytes
      if isFirst, isLast, isInside, slot.length >= 14, queues[queue].sending.room > 0,
        let tag = inFlight.next
      {
        swapAddresses(arena + Int(slot.position))
        queues[queue].sending.append(
          Descriptor(segment: slot.segment, offset: slot.offset, length: slot.length, tag: tag))
        inFlight.take(for: (slot.segment, queue))
      } else {
        giveBack(slot.segment, to: queue)
      }
      isFirst = isLast
    }
  }

  private mutating func giveBack(_ segment: UInt32, to queue: Int) {
    if queues[queue].returning.room > 0 {
      queues[queue].returning.append(Descriptor(segment: segment))
    }
  }

  private func swapAddresses(_ frame: UnsafeMutableRawPointer) {
    let bytes = frame.assumingMemoryBound(to: UInt8.self)
    for at in 0..<6 {
      let byte = bytes[at]
      bytes[at] = bytes[at + 6]
      bytes[at + 6] = byte
    }
  }

  /// A segment that was sent goes back only when the device has done with it.
  mutating func completed(_ burst: inout Burst) {
    for index in 0..<burst.count {
      if let (segment, queue) = inFlight.finish(burst[index].tag) { giveBack(segment, to: queue) }
    }
  }

  mutating func service() throws(StackError) -> Bool {
    var worked = false
    for queue in 0..<channel.queues {
      let before = queues[queue].sending.count + queues[queue].returning.count
      channel.ends[queue].transmit.push(&queues[queue].sending)
      channel.ends[queue].free.push(&queues[queue].returning)
      if queues[queue].sending.count + queues[queue].returning.count != before { worked = true }
    }
    return worked
  }

  var nextDeadline: Int32 { 10 }
  var descriptor: Int32 { -1 }
  var exitCode: Int32? { nil }
}

/// What the main file of such a program does.
func runMirror(
  socket: String, address: String
) throws(StackError) -> Int32 {
  guard let claim = Claim("ipv4:\(address)") else {
    throw StackError("\(address) is no address")
  }
  let environment = try InstanceEnvironment.attach(
    path: socket, request: AttachRequest(name: "mirror", claims: [claim]))
  return try environment.run { () throws(StackError) -> Int32 in
    let channel = InstanceChannel(environment)
    let stack = MirrorStack(environment, channel: channel)
    var loop = InstanceLoop(stack: stack, channel: channel, mode: .adaptive)
    return try loop.run()
  }
}
