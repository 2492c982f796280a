import CLinux
import Driver
import EmulatedPCI
import Glibc
import Memory
import PCI

extension ConformanceSuite where D: ~Copyable {
  /// Descriptors that this process has open.
  private static func openDescriptors() -> Int {
    (0..<1024).count { fcntl(Int32($0), F_GETFD) >= 0 }
  }

  static var lifeChecks: [Check] {
    [
      (
        "life: a thousand starts and stops leave nothing",
        { bench in
          let before = openDescriptors()
          let event = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
          let rounds = bench.model == nil ? 20 : 1000
          for round in 0..<rounds {
            let interrupts = InterruptPlan(configuration: event, queues: [event])
            var rig = try Rig<D>(bench, ringSize: 32, interrupts: interrupts)
            try rig.queue.post(16)
            _ = try rig.queue.send(rig.outgoing(4, from: round))
            try rig.stop()
          }
          close(event)
          let after = openDescriptors()
          // Others of this process open some meanwhile; a leak would be one for each round.
          try require(
            after < before + rounds, "\(after - before) descriptors more are open than before")
        }
      ),
      (
        "life: stopped in mid-burst everything comes back, and it works again",
        { bench in
          for round in 0..<30 {
            var rig = try Rig<D>(bench, ringSize: 64)
            try rig.queue.post(40)
            bench.inject(rig.frames(20))
            _ = try rig.queue.send(rig.outgoing(20), pieces: 3)
            for _ in 0..<round % 5 { _ = bench.step() }
            if round % 3 == 1 { _ = try rig.queue.receive() }
            if round % 3 == 2 { _ = try rig.queue.complete() }
            try rig.stop()
            // The second time nothing is left.
            rig.driver.stop()
            try rig.queue.takeBack()
            for _ in 0..<bench.patience where bench.step() {}
            _ = bench.takeSent()
          }
          var rig = try Rig<D>(bench)
          _ = try rig.wait { rig in
            try rig.queue.post(64)
            return try rig.queue.receive().isEmpty && false
          }
          try rig.receive(rig.frames(32, from: 5000))
          try rig.send(rig.outgoing(32, from: 5000))
          try rig.stop()
        }
      ),
      (
        "life: stopped in the middle of a packet everything comes back",
        { bench in
          var rig = try Rig<D>(bench, ringSize: 32, mtu: 9000)
          try rig.queue.post(2)
          // Where a device begins a frame that the buffers are too few for, the driver holds its beginning.
          bench.inject(rig.frames(1, byteCount: rig.largestFrame))
          let got = try rig.wait { rig in
            _ = bench.step()
            return try !rig.queue.receive().isEmpty
          }
          try require(
            !got || rig.largestFrame < 4096, "a frame came in buffers that cannot hold it")
          if bench.setStalled(true) { _ = try rig.queue.send(rig.outgoing(8), pieces: 3) }
          defer { _ = bench.setStalled(false) }
          try rig.stop()
        }
      ),
      (
        "life: a slow start is waited for",
        { bench in
          guard bench.setStalled(true) else {
            throw NotPossible(reason: "a real device takes the time that it takes")
          }
          defer { _ = bench.setStalled(false) }
          var rig = try Rig<D>(bench)
          _ = bench.setStalled(false)
          _ = try rig.wait { rig in
            _ = try rig.driver.handleConfigurationChange()
            return rig.driver.interface.linkIsUp
          }
          try rig.receive(rig.frames(8))
          try rig.send(rig.outgoing(8))
          try rig.stop()
        }
      ),
      (
        "life: after a stop the device does not touch memory",
        { bench in
          var rig = try Rig<D>(bench)
          rig.queue.watchesSurroundings = true
          try rig.queue.post(64)
          rig.driver.stop()
          bench.inject(rig.frames(16))
          for _ in 0..<20 { _ = bench.step() }
          var untouched = true
          for (_, slot) in rig.queue.posted {
            let start = bench.arena.address + Int(slot.position)
            let bytes = UnsafeRawBufferPointer(start: start, count: Int(slot.length))
            if !bytes.allSatisfy({ $0 == 0xa5 }) { untouched = false }
          }
          try require(untouched, "a frame was written after the driver's stop")
          try rig.stop()
        }
      ),
      (
        "life: too little memory for rings is an error that says so",
        { bench in
          var error: DriverError?
          do throws(DriverError) {
            _ = try D(
              DriverResources(
                function: bench.function, rings: DMAZone(bench.rings.first(256)),
                arena: bench.arena, requiresPlatformAccess: bench.requiresPlatformAccess))
          } catch let thrown {
            error = thrown
          }
          guard case .outOfRingMemory = error else {
            throw Nonconformance("256 bytes for rings: \(error.map { "\($0)" } ?? "no error")")
          }
          var rig = try Rig<D>(bench)
          try rig.receive(rig.frames(4))
          try rig.stop()
        }
      ),
    ]
  }
}
