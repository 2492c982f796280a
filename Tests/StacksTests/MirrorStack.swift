import Channel
import Memory
import Stacks
import Steering

/// A stack that sends every frame back to where it came from, in place: the example of "Writing a stack instance".
struct MirrorStack: StackInstance, ~Copyable {
  private let channel: InstanceChannel
  private let receivePart: ReceivePart
  // Invariant: one burst for each queue, until deinit.
  /// What waits for room in a queue's transmit ring.
  private let sending: UnsafeMutablePointer<Burst>
  /// The segment and the queue of each packet that is under way.
  private var inFlight = PacketTags<(segment: UInt32, queue: Int)>(count: 4096)

  init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel
  ) {
    self.channel = channel
    receivePart = environment.receivePart
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
      if isFirst, isLast, let frame = receivePart.bytes(of: slot), frame.count >= 14,
        sending[queue].room > 0, let tag = inFlight.next
      {
        swapAddresses(frame)
        sending[queue].append(
          Descriptor(segment: slot.segment, offset: slot.offset, length: slot.length, tag: tag))
        inFlight.take(for: (slot.segment, queue))
      } else {
        channel.giveBack(slot.segment, queue: queue)
      }
      isFirst = isLast
    }
  }

  private func swapAddresses(_ frame: UnsafeMutableRawBufferPointer) {
    for at in 0..<6 { frame.swapAt(at, at + 6) }
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
