import CLinux
import Channel
import Glibc
import Host
import Memory
import VirtioNet

/// A stage that gives all packets back as they are: what a stage costs the host, and the rings between the two. One thread.
struct PassingStage: ~Copyable {
  private let memory: ChannelMemory
  private var end: InstanceEnd
  private var burst = Burst(capacity: 256)

  init(_ host: borrowing SteadySharedHost<VirtioNet>) throws {
    guard let layout = ChannelLayout(queues: 1, slots: 4096) else {
      throw UnsupportedLoop(description: "no such channel")
    }
    let memory = try ChannelMemory(layout: layout)
    guard
      host.ask(
        "stage place=0 name=passing receive=all transmit=all fails=closed slots=4096",
        [
          dup(memory.descriptor), eventfd(0, Int32(EFD_NONBLOCK)),
          eventfd(0, Int32(EFD_NONBLOCK)),
        ])
    else { throw UnsupportedLoop(description: "the host does not take a stage") }
    // Both ends are awake all the time: nobody is ever woken.
    end = InstanceEnd(memory, queue: 0, hostDoorbell: -1)
    self.memory = memory
  }

  /// What has come goes back, but for memory without a packet.
  @inline(__always)
  mutating func pass() throws {
    try end.receive.pop(into: &burst)
    var first = 0
    while first < burst.count, burst[first &+ 1].tag == StagedPacket.Way.none.rawValue {
      first &+= StagedPacket.slots
    }
    burst.removeFirst(first)
    end.transmit.push(&burst)
  }
}
