import Driver
import Glibc
import Memory
import PCI

/// A driver that runs on a bench, with its first queue pair.
struct Rig<D: NetworkDriver & ~Copyable>: ~Copyable {
  let bench: any NetworkBench
  var driver: D
  var queue: QueueUnderTest<D.QueuePair>
  /// The second pair, where it was asked for and there is one.
  var second: QueueUnderTest<D.QueuePair>?
  let address: [UInt8]
  let ringSize: Int

  /// Starts the driver and waits for the link.
  init(
    _ bench: any NetworkBench, ringSize: Int = 256, pairs: Int = 1, mtu: Int? = nil,
    interrupts: InterruptPlan = .none
  ) throws {
    var driver = try D(
      DriverResources(
        function: bench.function, rings: DMAZone(bench.rings), arena: bench.arena,
        queuePairs: pairs, ringSize: ringSize, mtu: mtu,
        without: bench.without, interrupts: interrupts,
        requiresPlatformAccess: bench.requiresPlatformAccess))
    let isColoured = D.receiveBufferBytes == nil
    let segmentBytes = D.receiveBufferBytes ?? 2048
    let queue = QueueUnderTest(
      driver.takeQueuePair(0), arena: bench.arena, part: 0, segmentBytes: segmentBytes,
      isColoured: isColoured, headerBytes: D.receiveHeaderBytes)
    let second =
      pairs > 1 && driver.interface.queuePairs > 1
      ? QueueUnderTest(
        driver.takeQueuePair(1), arena: bench.arena, part: 1, segmentBytes: segmentBytes,
        isColoured: isColoured, headerBytes: D.receiveHeaderBytes) : nil
    try driver.start()
    var idle = 0
    while !driver.interface.linkIsUp && idle < bench.patience {
      if !bench.step() { idle += 1 }
      _ = try driver.handleConfigurationChange()
    }
    self.bench = bench
    self.ringSize = ringSize
    self.queue = queue
    self.second = second
    address = driver.interface.macAddress.array
    self.driver = driver
  }

  var largestFrame: Int { driver.interface.mtu + 14 }

  /// Calls `body` until it is done or nothing has happened for as long as the bench takes.
  mutating func wait(_ body: (inout Rig) throws -> Bool) throws -> Bool {
    var idle = 0
    while true {
      if try body(&self) { return true }
      if idle > bench.patience { return false }
      if !bench.step() { idle += 1 }
    }
  }

  /// Has frames sent to the driver and compares what it hands out, in order and byte for byte.
  mutating func receive(_ frames: [[UInt8]], posting: Int = 256) throws {
    var got: [[UInt8]] = []
    var sent = 0
    while sent < frames.count || got.count < frames.count {
      try queue.post(posting)
      // As many as there are surely buffers for.
      let perFrame = ((frames.map(\.count).max() ?? 0) + 64) / 1500 + 1
      let room = max(1, (queue.posted.count / perFrame) - (sent - got.count))
      let next = frames[sent..<min(frames.count, sent + min(64, room))]
      bench.inject(Array(next))
      sent += next.count
      let before = got.count
      let arrived = try wait { rig in
        got += try rig.queue.receive()
        return got.count >= sent
      }
      try require(
        arrived || got.count > before, "\(frames.count - got.count) frames never arrived")
    }
    try require(got.count == frames.count, "\(got.count) frames came of \(frames.count)")
    for (index, frame) in frames.enumerated() where got[index] != frame {
      throw Nonconformance("frame \(index) of \(frame.count) bytes came wrong: \(got[index].count)")
    }
  }

  /// Sends frames and compares what reaches the far end, in order and byte for byte; all are completed.
  mutating func send(_ frames: [[UInt8]], pieces: Int = 1, burst: Int = 32) throws {
    var sent = 0
    var seen: [[UInt8]] = []
    while sent < frames.count {
      let room = QueueUnderTest<D.QueuePair>.places - queue.inFlight.count
      let next = Array(frames[sent..<min(frames.count, sent + min(burst, room))])
      let taken = next.isEmpty ? 0 : try queue.send(next, pieces: pieces)
      sent += taken
      let before = queue.inFlight.count
      let moved = try wait { rig in
        _ = try rig.queue.complete()
        return rig.queue.inFlight.count < before || rig.queue.inFlight.isEmpty
      }
      seen += bench.takeSent()
      try require(moved || taken > 0, "packets are not completed: \(queue.inFlight.count) wait")
    }
    let completed = try wait { rig in
      _ = try rig.queue.complete()
      seen += rig.bench.takeSent()
      return rig.queue.inFlight.isEmpty && seen.count >= frames.count
    }
    try require(
      completed,
      "\(seen.count) frames of \(frames.count) reached the far end, \(queue.inFlight.count) packets were not completed"
    )
    try require(seen.count == frames.count, "\(seen.count) frames were sent for \(frames.count)")
    for (index, frame) in frames.enumerated() where seen[index] != frame {
      throw Nonconformance(
        "frame \(index) of \(frame.count) bytes in \(pieces) pieces reached the far end wrong")
    }
  }

  /// Frames for the driver.
  func frames(_ count: Int, from first: Int = 0, byteCount: Int = 64) -> [[UInt8]] {
    (first..<first + count).map { TestFrame.make($0, byteCount: byteCount, to: address) }
  }

  /// Frames for the far end.
  func outgoing(_ count: Int, from first: Int = 0, byteCount: Int = 64) -> [[UInt8]] {
    (first..<first + count).map {
      TestFrame.make($0, byteCount: byteCount, to: TestFrame.farEnd)
    }
  }

  /// Stops the driver; everything that it held must come back.
  mutating func stop() throws {
    driver.stop()
    try queue.takeBack()
    try second?.takeBack()
    let command = try bench.function.readConfiguration(at: 4, width: .word)
    try require(
      command & 4 == 0 || command == 0xffff, "bus mastering is still on after the driver's stop")
  }
}
