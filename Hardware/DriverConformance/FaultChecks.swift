import Driver
import EmulatedPCI
import Glibc

extension ConformanceSuite where D: ~Copyable {
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
            for mtu in [nil, 9000] {
              try named(name, bench) { try tryMalformed(name, mtu: mtu, model, bench) }
            }
          }
        }
      ),
      (
        "faults: buffers of refused frames go back to the device",
        { bench in
          guard let model = bench.model else {
            throw NotPossible(reason: "a real device cannot be made to misbehave")
          }
          for name in modelMalformations(model) {
            try named(name, bench) { try tryRefused(name, model, bench) }
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

  private static func named(
    _ malformation: String, _ bench: any NetworkBench, _ body: () throws -> Void
  ) throws {
    do {
      try body()
    } catch let found as Nonconformance {
      throw Nonconformance("\(malformation): \(found)")
    }
    // The device's own complaints are about its own fault.
    _ = bench.takeComplaints()
  }

  private static func modelMalformations(_ model: any NetworkModel) -> [String] {
    type(of: model).malformations
  }

  /// A malformed completion among good ones, in both directions: an error or a count, nothing lost or handed out twice
  /// (``QueueUnderTest`` sees to that), no frame that was not sent; and a new start works.
  private static func tryMalformed(
    _ name: String, mtu: Int?, _ model: any NetworkModel, _ bench: any NetworkBench
  ) throws {
    var rig = try Rig<D>(bench, ringSize: 32, mtu: mtu)
    // What is in a buffer that the device did not write shows itself.
    rig.queue.watchesSurroundings = true
    try rig.queue.post(24)
    let good = rig.frames(12)
    bench.inject(Array(good[..<4]))
    for _ in 0..<4 { _ = bench.step() }
    model.malform(name)
    // Alone, so that the driver looks before the next one mends it.
    bench.inject([good[4]])
    var got: [[UInt8]] = []
    var isBroken = false
    var error: DriverError?
    for round in 0..<24 {
      if round == 4 { bench.inject(Array(good[5...])) }
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
      try require(
        errors > 0 || got.count < good.count,
        "\(got.count) frames of \(good.count), and nothing was noticed")
      // Whatever it has left behind in the driver: many more frames do no harm.
      for number in 0..<160 {
        try rig.queue.post(24)
        bench.inject(rig.frames(1, from: 200 + number))
        _ = bench.step()
        do {
          _ = try rig.queue.receive()
        } catch is DriverError {
          break
        }
      }
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

  /// Every frame is malformed, until all buffers have been used several times. Where the driver refuses frames and keeps
  /// their buffers, a good one must still find room, and the buffers must be as they were lent.
  private static func tryRefused(
    _ name: String, _ model: any NetworkModel, _ bench: any NetworkBench
  ) throws {
    var rig = try Rig<D>(bench, ringSize: 32, mtu: 9000)
    rig.queue.watchesSurroundings = true
    try rig.queue.post(8)
    var isBroken = false
    do {
      for number in 0..<24 {
        model.malform(name)
        bench.inject(rig.frames(1, from: number))
        for _ in 0..<4 { _ = bench.step() }
        _ = try rig.queue.receive()
      }
    } catch is DriverError {
      isBroken = true
    }
    let refused = rig.queue.pair.statistics.receiveErrors
    if !isBroken && refused > 0 && rig.queue.posted.count == 8 {
      // The first good one may be taken for the end of the last bad one.
      bench.inject(rig.frames(1, from: 99))
      let good = rig.frames(1, from: 100, byteCount: rig.largestFrame)
      bench.inject(good)
      var got: [[UInt8]] = []
      _ = try rig.wait { rig in
        got += try rig.queue.receive()
        return got.last == good[0]
      }
      try require(got.last == good[0], "after \(refused) refused frames a good one finds no room")
    }
    try rig.stop()
    for _ in 0..<bench.patience where bench.step() {}
  }
}
