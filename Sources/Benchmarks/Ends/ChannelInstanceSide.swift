import CLinux
import Channel
import Glibc
import Memory

/// The instance's side, in a process of its own: `martlet bench-end channel`. Told by lines what to do; descriptor 3 is
/// the channel's memory, 4 that of the packets.
public enum ChannelInstanceSide {
  public static func run() throws {
    let pair = try ChannelPair(adoptingChannel: 3, arena: 4)
    pinThread(toCore: 1)
    var side = Side(pair)
    print("ready")
    fflush(nil)
    while let command = EndCommand.next() {
      let result: (value: Double, cpuShare: Double)
      switch command.word {
      case "take": result = try side.take(command.size, command.milliseconds, givesBack: true)
      case "descriptors":
        result = try side.take(command.size, command.milliseconds, givesBack: false)
      case "echo": result = try side.echo(command.size)
      default: continue
      }
      print("result", result.value, result.cpuShare)
      fflush(nil)
    }
  }

  private struct Side: ~Copyable {
    private var end: InstanceEnd
    private var burst = Burst(capacity: 64)
    private var answers = Burst(capacity: 64)
    private let packets: UnsafeMutableRawPointer
    private let isOver: UnsafeMutableRawPointer
    private let isQuiet: UnsafeMutableRawPointer
    private var sum: UInt64 = 0

    init(_ pair: borrowing ChannelPair) {
      end = InstanceEnd(pair.memory, queue: 0, hostDoorbell: -1)
      packets = pair.arena.address
      isOver = pair.isOver
      isQuiet = pair.isQuiet
    }

    /// - Returns: millions a second, from the first packet on.
    @inline(never)
    mutating func take(
      _ size: Int, _ milliseconds: Int, givesBack: Bool
    ) throws -> (value: Double, cpuShare: Double) {
      while end.receive.isEmpty() { cpu_pause() }
      let watch = Stopwatch()
      let limit = UInt64(milliseconds) * 1_000_000
      var taken = 0
      var turns = 0
      while true {
        turns &+= 1
        // The clock is read now and then only.
        if turns & 255 == 0 && watch.elapsed >= limit { break }
        taken &+= try turn(givesBack)
      }
      let result = (Double(taken) * 1000 / Double(watch.elapsed), watch.cpuShare)
      release_store32(isOver, 1)
      while acquire_load32(isQuiet) == 0 || !end.receive.isEmpty() { _ = try turn(givesBack) }
      while !burst.isEmpty { end.free.push(&burst) }
      return result
    }

    @inline(__always)
    private mutating func turn(_ givesBack: Bool) throws -> Int {
      // What did not fit the free ring waits.
      if !burst.isEmpty { end.free.push(&burst) }
      let before = burst.count
      try end.receive.pop(into: &burst)
      let count = burst.count &- before
      if !givesBack {
        for index in 0..<count { sum &+= UInt64(burst[index].length) }
        burst.removeAll()
        return count
      }
      for index in before..<burst.count {
        let header = packets + Int(burst[index].position)
        sum &+= relaxed_load64(header) &+ relaxed_load64(header + 8)
      }
      end.free.push(&burst)
      end.doorbell.ring()
      return count
    }

    /// Sends a packet of its own for each that comes, until the other end says that it is over.
    @inline(never)
    mutating func echo(_ size: Int) throws -> (value: Double, cpuShare: Double) {
      let watch = Stopwatch()
      var echoed = 0
      while acquire_load32(isOver) == 0 {
        try end.receive.pop(into: &burst)
        if burst.isEmpty { continue }
        for index in 0..<burst.count {
          sum &+= relaxed_load64(packets + Int(burst[index].position))
          answers.append(
            Descriptor(
              segment: UInt32((ChannelPair.partBytes >> 10) &+ index &* 2), length: 64,
              tag: UInt16(truncatingIfNeeded: index)))
        }
        echoed &+= burst.count
        end.transmit.push(&answers)
        end.free.push(&burst)
        end.doorbell.ring()
      }
      return (Double(echoed), watch.cpuShare)
    }
  }
}

/// A line that tells an end what to do: a word and two numbers.
struct EndCommand {
  var word: String
  var size: Int
  var milliseconds: Int

  /// - Returns: nil at the end of input.
  static func next() -> EndCommand? {
    while let line = readLine() {
      let words = line.split(separator: " ")
      if words.count == 3, let size = Int(words[1]), let milliseconds = Int(words[2]),
        (1...9216).contains(size)
      {
        return EndCommand(word: String(words[0]), size: size, milliseconds: milliseconds)
      }
    }
    return nil
  }
}
