import Channel
import Memory
import Stacks
import Steering

/// A stack that sends every frame back to where it came from, in place: the example of "Writing a stack instance".
struct MirrorStack: StackInstance, ~Copyable {
  private let channel: InstanceChannel
  private let arena: UnsafeMutableRawPointer
  private let receiveBytes: UInt64
  // Invariant: one element for each queue, until deinit.
  /// What waits for room in the transmit ring of each queue.
  private let sending: UnsafeMutablePointer<Burst>
  /// The segment and the queue of each packet that is under way.
  private var inFlight = PacketTags<(segment: UInt32, queue: Int)>(count: 4096)

  init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel
  ) {
    self.channel = channel
    arena = environment.arena.address
    receiveBytes = UInt64(environment.receiveBytes)
    sending = .allocate(capacity: channel.queues)
    // Room for every segment that the instance can have.
    let segments = environment.receiveBytes / Descriptor.unit
    for queue in 0..<channel.queues {
      (sending + queue).initialize(to: Burst(capacity: segments))
    }
  }

  deinit {
    sending.deinitialize(count: channel.queues)
    sending.deallocate()
  }

  mutating func receive(_ burst: inout Burst, queue: Int) {
    var isFirst = true
    for index in 0..<burst.count {
      let slot = burst[index]
      if slot.flags.contains(.offload) { continue }
      let isLast = !slot.flags.contains(.more)
      // The host is not believed: what lies outside of the receive part is neither read nor sent.
      let isInside = slot.position + UInt64(slot.length) <= receiveBytes
      if isFirst, isLast, isInside, slot.length >= 14, sending[queue].room > 0,
        let tag = inFlight.next
      {
        swapAddresses(arena + Int(slot.position))
        sending[queue].append(
          Descriptor(segment: slot.segment, offset: slot.offset, length: slot.length, tag: tag))
        inFlight.take(for: (slot.segment, queue))
      } else {
        channel.giveBack(slot.segment, queue: queue)
      }
      isFirst = isLast
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
      if let (segment, queue) = inFlight.finish(burst[index].tag) {
        channel.giveBack(segment, queue: queue)
      }
    }
  }

  mutating func service() throws(StackError) -> Bool {
    var worked = false
    for queue in 0..<channel.queues {
      let before = sending[queue].count
      channel.ends[queue].transmit.push(&sending[queue])
      if sending[queue].count != before { worked = true }
    }
    return worked
  }

  var nextDeadline: Int32 { 10 }
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
    let stack = try MirrorStack(environment, InstanceArguments([]), channel: channel)
    var loop = InstanceLoop(stack: stack, channel: channel, mode: .adaptive)
    return try loop.run()
  }
}
