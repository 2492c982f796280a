import Channel
import Memory

/// A stack that answers nothing: it reads the first 16 bytes of each packet, counts packets and bytes, and gives the
/// segments back. For measuring what a NIC and its driver deliver to another process.
public struct SinkStack: StackInstance, ~Copyable {
  private let environment: InstanceEnvironment
  private let channel: InstanceChannel
  private let arena: UnsafeMutableRawPointer
  private let receiveBytes: UInt64
  // Invariant: one burst for each of the channel's queues, until deinit.
  /// Segments on their way back; what a queue's free ring does not take waits here.
  private let returning: UnsafeMutablePointer<Burst>
  private var counts = Counts()

  private struct Counts {
    var packets: UInt64 = 0
    var bytes: UInt64 = 0
    /// Of the headers' words, which shows that they have been read.
    var headerSum: UInt64 = 0
    /// Pieces outside the receive part, and such that found no room on their way back.
    var refused: UInt64 = 0
  }

  /// Names its counters.
  public init(_ environment: InstanceEnvironment, channel: InstanceChannel) {
    self.environment = environment
    self.channel = channel
    arena = environment.arena.address
    receiveBytes = UInt64(environment.receiveBytes)
    returning = .allocate(capacity: channel.queues)
    for queue in 0..<channel.queues {
      (returning + queue).initialize(to: Burst(capacity: 4096))
    }
    for (index, name) in [
      "stack_rx_packets", "stack_rx_bytes", "stack_rx_header_sum", "stack_rx_refused",
    ].enumerated() { environment.counters.name(index, name) }
  }

  deinit {
    returning.deinitialize(count: channel.queues)
    returning.deallocate()
  }

  /// Reads, counts, gives back.
  public mutating func receive(_ burst: inout Burst, queue: Int) {
    var isFirst = true
    for index in 0..<burst.count {
      let slot = burst[index]
      let isLast = !slot.flags.contains(.more)
      if slot.flags.contains(.offload) { continue }
      let start = slot.position
      if start + max(16, UInt64(slot.length)) <= receiveBytes, returning[queue].room > 0 {
        if isFirst {
          let header = UnsafeRawPointer(arena + Int(start))
          counts.headerSum &+=
            header.loadUnaligned(as: UInt64.self)
            &+ header.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        }
        counts.bytes &+= UInt64(slot.length)
        returning[queue].append(Descriptor(segment: slot.segment))
      } else {
        counts.refused &+= 1
      }
      if isLast { counts.packets &+= 1 }
      isFirst = isLast
    }
    channel.ends[queue].free.push(&returning[queue])
    environment.counters.set(0, counts.packets)
    environment.counters.set(1, counts.bytes)
    environment.counters.set(2, counts.headerSum)
    environment.counters.set(3, counts.refused)
  }

  /// It sends nothing.
  public mutating func completed(_ burst: inout Burst) {}

  /// Segments that found no room on their way back.
  public mutating func service() -> Bool {
    var worked = false
    for queue in 0..<channel.queues where !returning[queue].isEmpty {
      let before = returning[queue].count
      channel.ends[queue].free.push(&returning[queue])
      if returning[queue].count != before { worked = true }
    }
    return worked
  }

  /// Milliseconds until it has something to do by itself.
  public var nextDeadline: Int32 { 1000 }
  /// A further descriptor that wakes it; -1 for none.
  public var descriptor: Int32 { -1 }
  /// It goes on until it is asked to end.
  public var exitCode: Int32? { nil }
}
