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
          for round in 0..<(bench.model == nil ? 20 : 1000) {
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
            after < before + 20, "\(after - before) descriptors more are open than before")
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

  static var faultChecks: [Check] {
    [
      (
        "faults: a device that is gone is noticed, and stopping does not hang",
        { bench in
          var rig = try Rig<D>(bench)
          try rig.queue.post(64)
          _ = try rig.queue.send(rig.outgoing(4))
          guard bench.setGone(true) else {
            throw NotPossible(reason: "a real device cannot be pulled out from here")
          }
          defer { _ = bench.setGone(false) }
          var error: DriverError?
          do throws(DriverError) {
            _ = try rig.driver.handleConfigurationChange()
          } catch let thrown {
            error = thrown
          }
          try require(
            error == .deviceGone, "a device that is gone is \(error.map { "\($0)" } ?? "unnoticed")"
          )
          let before = time(nil)
          rig.driver.stop()
          try rig.queue.takeBack()
          try require(time(nil) - before <= 5, "stopping a device that is gone takes long")
        }
      ),
      (
        "faults: malformed completions are contained",
        { bench in
          guard let model = bench.model else {
            throw NotPossible(reason: "a real device cannot be made to misbehave")
          }
          for name in modelMalformations(model) {
            do {
              try tryMalformed(name, model, bench)
            } catch let found as Nonconformance {
              throw Nonconformance("\(name): \(found)")
            }
            // The device's own complaints are about its own fault.
            _ = bench.takeComplaints()
          }
        }
      ),
    ]
  }

  /// Whether a frame is put together from the beginnings of others. A device may cut and join what it received, and
  /// nobody can know; but it cannot bring in bytes that it did not write.
  private static func isMade(_ frame: ArraySlice<UInt8>, of parts: [[UInt8]]) -> Bool {
    if frame.isEmpty { return true }
    for part in parts {
      let common = zip(frame, part).prefix { $0 == $1 }.count
      if common == frame.count { return true }
      if common == part.count, isMade(frame.dropFirst(common), of: parts) { return true }
    }
    return false
  }

  private static func modelMalformations(_ model: any NetworkModel) -> [String] {
    type(of: model).malformations
  }

  /// A malformed completion among good ones, in both directions: an error or a count, nothing lost or handed out twice
  /// (``QueueUnderTest`` sees to that), no frame that was not sent; and a new start works.
  private static func tryMalformed(
    _ name: String, _ model: any NetworkModel, _ bench: any NetworkBench
  ) throws {
    var rig = try Rig<D>(bench, ringSize: 32)
    try rig.queue.post(24)
    let good = rig.frames(12)
    bench.inject(Array(good[..<4]))
    for _ in 0..<4 { _ = bench.step() }
    model.malform(name)
    bench.inject(Array(good[4...]))
    var got: [[UInt8]] = []
    var isBroken = false
    var error: DriverError?
    for _ in 0..<24 {
      _ = bench.step()
      do {
        if !isBroken { got += try rig.queue.receive() }
        _ = try rig.queue.send(rig.outgoing(1), pieces: 2)
        _ = try rig.queue.complete()
      } catch let thrown as DriverError {
        isBroken = true
        error = thrown
      }
    }
    let errors = rig.queue.pair.statistics.receiveErrors
    let unknown = got.first { !isMade($0[...], of: good) }
    try require(unknown == nil, "a frame of \(unknown?.count ?? 0) bytes came that nobody sent")
    if isBroken {
      // A queue that is broken stays so.
      var again: DriverError?
      do {
        _ = try rig.queue.receive()
        _ = try rig.queue.complete()
      } catch let thrown as DriverError {
        again = thrown
      }
      try require(again == error, "a broken queue works on: \(error!), then no error")
    } else {
      let isWhole = got.count == good.count
      try require(
        isWhole || errors > 0 || got.count < good.count,
        "\(got.count) frames of \(good.count), and no error")
    }
    try rig.stop()
    for _ in 0..<bench.patience where bench.step() {}
    _ = bench.takeSent()
    var next = try Rig<D>(bench, ringSize: 32)
    _ = try next.wait { rig in
      try rig.queue.post(24)
      return try rig.queue.receive().isEmpty && false
    }
    try next.receive(next.frames(40, from: 100))
    try next.send(next.outgoing(40, from: 100))
    try next.stop()
  }
}
