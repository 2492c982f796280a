import Channel
import Memory

/// A stack that answers nothing: it reads the first 16 bytes of each packet, counts packets and bytes, and gives the
/// segments back. For measuring what a NIC and its driver deliver to another process.
public struct SinkStack: StackInstance, ~Copyable {
  private let environment: InstanceEnvironment
  private let channel: InstanceChannel
  private let receivePart: ReceivePart
  private var counts = Counts()

  private struct Counts {
    var packets: UInt64 = 0
    var bytes: UInt64 = 0
    /// Of the headers' words, which shows that they have been read.
    var headerSum: UInt64 = 0
    /// Pieces outside the receive part.
    var refused: UInt64 = 0
  }

  /// Names its counters.
  public init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel
  ) {
    self.environment = environment
    self.channel = channel
    receivePart = environment.receivePart
    for (index, name) in [
      "stack_rx_packets", "stack_rx_bytes", "stack_rx_header_sum", "stack_rx_refused",
    ].enumerated() { environment.counters.name(index, name) }
  }

  /// Reads, counts, gives back.
  public mutating func receive(_ burst: inout Burst, queue: Int) {
    var isFirst = true
    for index in 0..<burst.count {
      let slot = burst[index]
      let isLast = !slot.flags.contains(.more)
      if slot.flags.contains(.offload) { continue }
      if let bytes = receivePart.bytes(of: slot) {
        if isFirst && bytes.count >= 16 {
          let header = UnsafeRawPointer(bytes.baseAddress!)
          counts.headerSum &+=
            header.loadUnaligned(as: UInt64.self)
            &+ header.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        }
        counts.bytes &+= UInt64(slot.length)
        channel.giveBack(slot.segment, queue: queue)
      } else {
        counts.refused &+= 1
      }
      if isLast { counts.packets &+= 1 }
      isFirst = isLast
    }
    environment.counters.set(0, counts.packets)
    environment.counters.set(1, counts.bytes)
    environment.counters.set(2, counts.headerSum)
    environment.counters.set(3, counts.refused)
  }

  /// It sends nothing.
  public mutating func completed(_ burst: inout Burst) {}

  /// Nothing is due by itself.
  public mutating func service() -> Bool { false }
}
