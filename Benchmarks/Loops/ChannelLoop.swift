import Channel
import Memory

/// Bursts of descriptors through one ring of a channel, both ends in one thread.
public struct ChannelLoop: PathLoop, ~Copyable {
  private let memory: ChannelMemory
  private var host: HostEnd
  private var instance: InstanceEnd
  private var sending = Burst(capacity: 64)
  private var received = Burst(capacity: 64)

  public init() throws {
    guard let layout = ChannelLayout(queues: 1, slots: 1024) else {
      throw UnsupportedLoop(description: "no such channel")
    }
    memory = try ChannelMemory(layout: layout)
    host = HostEnd(memory, queue: 0, peerEvent: -1)
    instance = InstanceEnd(memory, queue: 0, peerEvent: -1)
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var done = 0
    for _ in 0..<bursts {
      for tag in 0..<Self.burstSize {
        sending.append(
          Descriptor(
            segment: UInt32(truncatingIfNeeded: tag &* 2), length: 64,
            tag: UInt16(truncatingIfNeeded: tag)))
      }
      host.receive.push(&sending)
      try instance.receive.pop(into: &received)
      for index in 0..<received.count where received[index].length == 64 { done &+= 1 }
      received.removeAll()
    }
    return done
  }
}
