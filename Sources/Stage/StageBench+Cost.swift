import CLinux
import Channel
import Glibc
import Memory

extension StageBench where Stage: ~Copyable {
  /// What a stage's work on these packets takes, with the runtime's checks and without rings and other processes: they
  /// lie in the caches. The best of many bursts. What the stage holds goes on after each burst.
  /// - Parameters:
  ///   - packets: one burst, of 64 at most; each burst begins with them as they are here.
  ///   - bursts: how many.
  /// - Returns: nanoseconds for each packet.
  public mutating func cost(of packets: [BenchPacket], bursts: Int) throws(StageError) -> Double {
    precondition(!packets.isEmpty && packets.count <= StageQueue.burst && bursts > 0)
    precondition(packets.count <= free.count && packets.allSatisfy { memory.holds($0.bytes.count) })
    var burst = Burst(capacity: packets.count * StagedPacket.slots)
    var best = UInt64.max
    for _ in 0..<bursts {
      burst.removeAll()
      // They come back with what comes out.
      let numbers = Array(free.suffix(packets.count))
      free.removeLast(packets.count)
      for (number, packet) in packets.enumerated() {
        memory.place(packet, numbers[number]).append(to: &burst)
      }
      let start = monotonic_nanoseconds()
      try running.take(burst, queue: 0)
      best = min(best, monotonic_nanoseconds() &- start)
      _ = stop()
    }
    return Double(best) / Double(packets.count)
  }
}
