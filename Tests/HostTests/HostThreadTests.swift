import CLinux
import Channel
import Glibc
import Memory
import Testing

@testable import Host

/// Queue threads and their control thread, on a device in the same process.
@Suite(.serialized) struct HostThreadTests {
  /// What a stack instance does with one queue: sends, takes what has come, gives it back.
  struct Peer: ~Copyable {
    var end: InstanceEnd
    let queue: Int
    var sent = 0
    var completed = 0
    var received: [Int] = []
    var burst = Burst(capacity: 64)

    init(_ bench: ThreadBench, _ queue: Int) {
      end = bench.instance(queue)
      self.queue = queue
    }

    /// Sends one frame where there is room: the queue's own segments, one after the other.
    mutating func send(_ bench: ThreadBench) {
      guard sent - completed < 100 else { return }
      let unit = ThreadBench.partBytes / 1024 + 2 * (sent % 100) + queue
      let frame = ThreadBench.frame(2 * sent + queue)
      (bench.arena + unit * 1024).copyMemory(from: frame, byteCount: frame.count)
      burst.append(
        Descriptor(segment: UInt32(unit), length: UInt32(frame.count), tag: UInt16(sent % 65536)))
      end.transmit.push(&burst)
      if burst.isEmpty { sent += 1 }
      burst.removeAll()
      end.doorbell.ring()
    }

    mutating func take(_ bench: ThreadBench) throws {
      try end.completion.pop(into: &burst)
      for index in 0..<burst.count {
        #expect(burst[index].tag == UInt16(completed % 65536))
        completed += 1
      }
      burst.removeAll()
      try end.receive.pop(into: &burst)
      for index in 0..<burst.count {
        let start = bench.arena + Int(burst[index].position)
        received.append(
          Int(start.load(fromByteOffset: 14, as: UInt8.self))
            | Int(start.load(fromByteOffset: 15, as: UInt8.self)) << 8)
      }
      if !burst.isEmpty {
        end.free.push(&burst)
        end.doorbell.ring()
      }
      burst.removeAll()
    }
  }

  @Test(arguments: [PollMode.poll, .yield, .adaptive, .interrupt])
  func everyPacketOfBothQueuesArrives(_ mode: PollMode) throws {
    let bench = try ThreadBench(mode)
    try bench.start()
    var first = Peer(bench, 0)
    var second = Peer(bench, 1)
    let count = 1000
    var arriving = 0
    let isDone = try bench.waits {
      if first.sent < count { first.send(bench) }
      if second.sent < count { second.send(bench) }
      // A device that does not run yet drops what arrives.
      if first.completed > 0, arriving < 2 * count,
        arriving - first.received.count - second.received.count < 50
      {
        bench.function.exclusively { bench.wire.arriving.append(ThreadBench.frame(arriving)) }
        arriving += 1
      }
      try first.take(bench)
      try second.take(bench)
      return first.completed == count && second.completed == count
        && first.received.count + second.received.count == 2 * count
    }
    #expect(isDone, "\(bench.device.counters), \(bench.published)")
    let isWhole = (first.received + second.received).sorted() == Array(0..<2 * count)
    #expect(isWhole)
    for received in [first.received, second.received] {
      let isInOrder = received == received.sorted()
      #expect(isInOrder && received.count > 100)
    }
    bench.stop()
    #expect(bench.end() == "stopped")
    let sent = bench.wire.sent.map(\.frame)
    for queue in 0..<2 {
      let numbers = sent.map { Int($0[14]) | Int($0[15]) << 8 }.filter { $0 % 2 == queue }
      let isInOrder = numbers == (0..<count).map { 2 * $0 + queue }
      #expect(isInOrder)
      #expect(bench.counters["tx_q\(queue)_packets"] == UInt64(count))
      #expect(bench.counters["rx_q\(queue)_segments_device"] == 0)
      // What has been given back last may lie in the free ring yet.
      let segments = ["host", "instance"].map { bench.counters["rx_q\(queue)_segments_\($0)"] ?? 0 }
      #expect(segments[0] + segments[1] == 256 && segments[1] < 64)
    }
    #expect(bench.device.violations.first == [])
    #expect(bench.device.iommu.faults.isEmpty)
  }

  /// A wake-up that is lost costs a second: hardly any of a hundred sleeps on each queue take as long.
  @Test func eachThreadSleepsByItselfAndWakesByItsOwnDoorbell() throws {
    let bench = try ThreadBench(.interrupt)
    try bench.start()
    var peers = [0, 0]
    var slowCount = 0
    for queue in 0..<2 {
      var peer = Peer(bench, queue)
      for round in 1...100 {
        let begin = monotonic_milliseconds()
        peer.send(bench)
        let isDone = try bench.waits {
          try peer.take(bench)
          return peer.completed == round
        }
        #expect(isDone)
        if monotonic_milliseconds() - begin >= 900 { slowCount += 1 }
        // Long enough for the thread to sleep.
        usleep(200)
      }
      peers[queue] = peer.completed
    }
    #expect(peers == [100, 100])
    #expect(slowCount < 5)
    bench.stop()
    #expect(bench.end() == "stopped")
    #expect(try #require(bench.counters["q0_sleeps"]) > 50)
    #expect(try #require(bench.counters["q1_sleeps"]) > 50)
  }

  @Test func aStopUnderLoadLeavesNothingWithTheDevice() throws {
    for round in 0..<20 {
      let bench = try ThreadBench(round % 2 == 0 ? .poll : .adaptive)
      try bench.start()
      var first = Peer(bench, 0)
      var second = Peer(bench, 1)
      let until = 20 + 37 * round
      #expect(
        try bench.waits {
          first.send(bench)
          second.send(bench)
          bench.function.exclusively { bench.wire.arriving.append(ThreadBench.frame(0)) }
          try first.take(bench)
          try second.take(bench)
          return first.completed >= until && second.completed >= until
        })
      first.send(bench)
      second.send(bench)
      bench.stop()
      #expect(bench.end() == "stopped")
      #expect(bench.function.writesSinceReset == 0, "a register was written after the stop")
      for queue in 0..<2 {
        #expect(bench.counters["rx_q\(queue)_segments_device"] == 0)
        let host = try #require(bench.counters["rx_q\(queue)_segments_host"])
        let instance = try #require(bench.counters["rx_q\(queue)_segments_instance"])
        #expect(host + instance == 256)
      }
      #expect(bench.device.violations.first == [])
    }
  }

  @Test(arguments: [PollMode.poll, .interrupt])
  func anOffenceOnOneQueueEndsTheHostWithThatReason(_ mode: PollMode) throws {
    let bench = try ThreadBench(mode)
    try bench.start()
    var first = Peer(bench, 0)
    var second = Peer(bench, 1)
    #expect(
      try bench.waits {
        first.send(bench)
        try first.take(bench)
        return first.completed >= 200
      })
    second.burst.append(Descriptor(segment: 0, length: 100))
    second.end.transmit.push(&second.burst)
    second.end.doorbell.ring()
    let reason = bench.end()
    #expect(reason.contains("stack instance") && reason.contains("transmit part"), "\(reason)")
    #expect(bench.function.writesSinceReset == 0)
    for queue in 0..<2 { #expect(bench.counters["rx_q\(queue)_segments_device"] == 0) }
    #expect(bench.counters["tx_q1_packets"] == 0)
  }
}
