import Channel
import Memory

/// Bursts of descriptors through one ring of a channel, both ends in one thread.
public struct ChannelLoop: PathLoop, ~Copyable {
  private let memory: ChannelMemory
  private var host: HostEnd
  private var instance: InstanceEnd
  private var slots = Burst(capacity: 64)

  public init() throws {
    guard let layout = ChannelLayout(queues: 1, slots: 1024) else {
      throw UnsupportedLoop(description: "no such channel")
    }
    memory = try ChannelMemory(layout: layout)
    host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    instance = InstanceEnd(memory, queue: 0, hostDoorbell: -1)
    for index in 0..<UInt32(Self.burstSize) {
      slots.append(Descriptor(segment: index &* 2, length: 64))
    }
  }

  @inline(never)
  public mutating func run(bursts: Int) throws -> Int {
    var done = 0
    for _ in 0..<bursts {
      host.receive.push(&slots)
      try instance.receive.pop(into: &slots)
      let arrived = slots.start
      for index in 0..<slots.count where arrived[index].length == 64 { done &+= 1 }
    }
    return done
  }
}
