import CLinux
import Channel
import Glibc
import Testing

@testable import Commands

/// Clients and server in threads of their own.
@Suite(.serialized) struct ThreadTests {
  /// Serves until told to end, sleeping whenever there is nothing to do.
  private func serve(
    _ server: TestServer, until end: Flag, core: Int32? = nil
  ) -> TestThread {
    TestThread {
      if let core { _ = linux_run_on_core(core) }
      var sleeps = 0
      var late = 0
      while !end.isSet {
        if server.turn() { continue }
        if !server.prepareToSleep() { continue }
        sleeps += 1
        if isReadable(server.server.descriptor, milliseconds: 1000) || end.isSet { continue }
        // A second is far more than any wake-up takes: where there is a command and still no ring, that was lost.
        if server.turn() && !isReadable(server.server.descriptor, milliseconds: 0) { late += 1 }
      }
      return [sleeps, late]
    }
  }

  @Test func noWakeUpIsLost() throws {
    let server = try TestServer()
    let end = Flag()
    let clients = try (0..<3).map { try server.attach(UInt32(10 + $0)) }
    let serving = serve(server, until: end)
    // Each sleeps after few looks, so that all ways of missing each other occur.
    let callers = clients.enumerated().map { index, client in
      TestThread {
        client.client.spins = index == 0 ? 0 : index * 40
        for round in 0..<20_000 as Range<UInt64> {
          let statistics = try client.client.statistics(queue: Int(round & 3))
          guard statistics.receivedPackets == UInt64(10 + index) << 32 + 1 else {
            return [Int(round)]
          }
          if round % 1024 == 0 { usleep(200) }
        }
        return []
      }
    }
    for caller in callers { #expect(try caller.join() == []) }
    end.set()
    // One more ring, so that it sees the end.
    _ = try? clients[0].submit(CommandSubmission(.time))
    let numbers = try serving.join()
    #expect(numbers[0] > 100 && numbers[1] == 0, "sleeps, lost wake-ups: \(numbers)")
    #expect(server.closed() == nil)
  }

  /// The next command comes at any distance from the server's falling asleep.
  @Test func noWakeUpIsLostWhileFallingAsleep() throws {
    let server = try TestServer()
    let end = Flag()
    let client = try server.attach(10)
    let serving = serve(server, until: end, core: 1)
    client.client.spins = .max
    // On a core of its own: where one preempts the other, they never meet.
    let calling = TestThread {
      _ = linux_run_on_core(0)
      for round in 0..<100_000 {
        _ = try client.client.linkState()
        for _ in 0..<round % 29 { cpu_pause() }
      }
      return []
    }
    _ = try calling.join()
    end.set()
    _ = try? client.submit(CommandSubmission(.time))
    let numbers = try serving.join()
    #expect(numbers[0] > 100 && numbers[1] == 0, "sleeps, lost wake-ups: \(numbers)")
  }

  @Test func manyOnTheWayFromSeveralThreads() throws {
    let server = try TestServer()
    let end = Flag()
    let clients = try (0..<3).map { try server.attach(UInt32(10 + $0), startIndex: .max - 5000) }
    let serving = serve(server, until: end)
    let senders = clients.map { client in
      TestThread {
        var sent: UInt64 = 0
        var last: UInt64 = 0
        while last < 50_000 {
          while sent < 50_000, (try? client.submit(CommandSubmission(.linkState))) != nil {
            sent += 1
          }
          while let completion = try client.poll() {
            guard completion.sequence == last + 1, completion.status == .done else {
              return [Int(last)]
            }
            last += 1
          }
          if sent > last && client.client.prepareToSleep() {
            _ = isReadable(client.client.descriptor, milliseconds: 1000)
          }
          client.client.awake()
        }
        return [Int(last)]
      }
    }
    for sender in senders { #expect(try sender.join() == [50_000]) }
    end.set()
    _ = try? clients[0].submit(CommandSubmission(.time))
    _ = try serving.join()
    #expect(server.closed() == nil)
    #expect(server.count(.done) >= 150_000)
  }

  /// Hostile cases S16 and S26: all of the memory is written while the server reads it, entries after their check too.
  @Test(arguments: [UInt64(1), 2, 3, 4]) func memoryThatChangesAllTheTimeHurtsNobodyElse(
    _ seed: UInt64
  ) throws {
    let server = try TestServer()
    let end = Flag()
    let polite = try server.attach(6)
    var hostile = try server.attach(5)
    let scribbled = ScribbledMemory(hostile.memory, hostile.credential)
    let scribbler = TestThread { [scribbled.scribble(seed: seed, until: end)] }
    var closings = 0
    var generation: UInt32 = 0
    let start = monotonic_nanoseconds()
    var rounds = 0
    while monotonic_nanoseconds() - start < 1_000_000_000 {
      rounds += 1
      try polite.submit(CommandSubmission(.statistics, .max))
      server.turn()
      let completion = try #require(try polite.poll())
      #expect(InstanceStatistics(completion.values).receivedPackets == 6 << 32 + 1)
      while let closed = server.closed() {
        #expect(closed.instance & 255 == 5)
        closings += 1
        server.remove(closed.instance)
        generation += 1
        hostile = try server.attach(5 | generation << 8)
        scribbled.aim(hostile.memory, hostile.credential)
      }
    }
    end.set()
    let writes = try scribbler.join()[0]
    #expect(writes > 1000 && rounds > 1000)
    // Only the two of them were served, each as itself.
    #expect(server.service.served.keys.allSatisfy { $0 == 6 || $0 & 255 == 5 })
    #expect(server.service.joined.allSatisfy { $0.instance & 255 == 5 })
    #expect(server.service.served[6] == rounds)
    #expect(seed != 1 || closings > 0)
  }
}

/// What a hostile thread writes to: words of one memory after the other.
private final class ScribbledMemory: @unchecked Sendable {
  // Invariant: the address of a mapping that stays until the process ends.
  private let target = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
  private let byteCount: Int

  init(_ memory: RawMemory, _ credential: CredentialID) {
    byteCount = memory.byteCount
    aim(memory, credential)
  }

  func aim(_ memory: RawMemory, _ credential: CredentialID) {
    relaxed_store64(target + 8, credential.high)
    relaxed_store64(target + 16, credential.low)
    release_store64(target, UInt64(UInt(bitPattern: memory.bytes)))
  }

  /// With an odd seed indices are wild too; with an even one they only advance, so that many entries are taken.
  func scribble(seed: UInt64, until end: Flag) -> Int {
    var state = seed &* 0x9e37_79b9_7f4a_7c15
    func random() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
    var writes = 0
    while !end.isSet {
      guard let bytes = UnsafeMutableRawPointer(bitPattern: UInt(acquire_load64(target))) else {
        return writes
      }
      writes += 1
      let entry = bytes + 4096 + Int(random() % 64) * 64
      relaxed_store64(entry, random() % 12 | (random() % 4) << 32 | (random() % 300) << 48)
      relaxed_store64(entry + 8, UInt64(writes) | (random() % 3) << 40)
      if random() & 7 != 0 {
        relaxed_store64(entry + 16, relaxed_load64(target + 8))
        relaxed_store64(entry + 24, relaxed_load64(target + 16))
      }
      relaxed_store64(entry + 32, random() % 20000)
      relaxed_store64(bytes + 4096 + 64 * 128 + Int(random() % 2048) * 8, random())
      if seed & 1 != 0 && random() & 63 == 0 {
        relaxed_store32(
          bytes + 128 + Int(random() % 7) * 128, UInt32(truncatingIfNeeded: random() >> 40))
      }
      // What was answered counts as read, and one more entry as submitted.
      relaxed_store32(bytes + 512, relaxed_load32(bytes + 384))
      let taken = relaxed_load32(bytes + 256)
      release_store32(bytes + 128, taken &+ UInt32(random() % 3))
    }
    return writes
  }

  deinit { target.deallocate() }
}
