import Driver
import Memory
import PCI

extension ConformanceSuite where D: ~Copyable {
  static var identityChecks: [Check] {
    [
      (
        "the driver names functions and itself",
        { bench in
          let identity = PCIMatch(
            vendor: try bench.function.vendor, device: try bench.function.device)
          try require(!D.name.isEmpty, "the driver has no name")
          try require(
            D.matches.contains(identity), "\(identity) is not among the driver's functions")
          var rig = try Rig<D>(bench)
          let interface = rig.driver.interface
          try require(
            !interface.macAddress.isMulticast && !interface.macAddress.isZero,
            "\(interface.macAddress) is no address of a function")
          try require((68...65535).contains(interface.mtu), "an MTU of \(interface.mtu)")
          try require(interface.queuePairs >= 1, "no queue pairs")
          try require(interface.linkIsUp, "the link does not come up")
          try rig.stop()
        }
      )
    ]
  }

  static var receiveChecks: [Check] {
    [
      (
        "receive: bursts of 1 to 64",
        { bench in
          var rig = try Rig<D>(bench)
          var number = 0
          for count in 1...64 {
            try rig.receive(rig.frames(count, from: number))
            number += count
          }
          let statistics = rig.queue.pair.statistics
          try require(
            statistics.receivedPackets == UInt64(number)
              && statistics.receivedBytes == UInt64(number * 64) && statistics.receiveErrors == 0,
            "statistics say \(statistics.receivedPackets) packets of \(number)")
          try rig.stop()
        }
      ),
      (
        "receive: frames of every length",
        { bench in
          var rig = try Rig<D>(bench)
          rig.queue.watchesSurroundings = true
          let lengths = Array(stride(from: 60, to: rig.largestFrame, by: 97)) + [rig.largestFrame]
          for (number, length) in lengths.enumerated() {
            try rig.receive(rig.frames(1, from: number, byteCount: length), posting: 16)
          }
          try rig.stop()
        }
      ),
      (
        "receive: jumbo frames over several segments",
        { bench in
          var rig = try Rig<D>(bench, mtu: 9000)
          guard rig.driver.interface.mtu >= 4000 else {
            throw NotPossible(
              reason: "driver and device have an MTU of \(rig.driver.interface.mtu)")
          }
          rig.queue.watchesSurroundings = true
          try rig.receive(rig.frames(40, byteCount: rig.largestFrame))
          // Around the places where a segment ends.
          for length in [2034, 2035, 2036, 2047, 2048, 2049, 4095, 4096, 4097] {
            try rig.receive(rig.frames(3, byteCount: min(length, rig.largestFrame)))
          }
          try rig.stop()
        }
      ),
      (
        "receive: a ring that wraps many times",
        { bench in
          var rig = try Rig<D>(bench, ringSize: 16)
          // More than 65536: indices of 16 bits wrap as well.
          let count = bench.model == nil ? 3000 : 66_000
          var number = 0
          while number < count {
            try rig.receive(rig.frames(500, from: number))
            number += 500
          }
          try rig.stop()
        }
      ),
      (
        "receive: without segments frames are lost, segments are not",
        { bench in
          var rig = try Rig<D>(bench)
          try rig.queue.post(4)
          bench.inject(rig.frames(24))
          var got: [[UInt8]] = []
          _ = try rig.wait { rig in
            got += try rig.queue.receive()
            return false
          }
          try require(got.count <= 4, "\(got.count) frames came in 4 segments")
          // What waits at the wire may come now, also in segments that are posted one by one; then everything is as before.
          for _ in 0..<8 {
            try rig.queue.post(1)
            _ = try rig.wait { rig in
              got += try rig.queue.receive()
              return false
            }
          }
          let sent = Set(rig.frames(24))
          try require(sent.isSuperset(of: got), "a frame came that nobody sent")
          try rig.queue.post(64)
          _ = try rig.wait { rig in
            _ = try rig.queue.receive()
            try rig.queue.post(64)
            return false
          }
          try rig.receive(rig.frames(64, from: 100))
          try rig.stop()
        }
      ),
      (
        "receive: a burst without room takes nothing",
        { bench in
          var rig = try Rig<D>(bench)
          try rig.queue.post(32)
          bench.inject(rig.frames(8))
          for _ in 0..<4 { _ = bench.step() }
          var small = Burst(capacity: 70)
          for index in 0..<68 { small.append(Descriptor(segment: UInt32(index))) }
          try rig.queue.pair.receive(into: &small)
          let count = small.count
          try require(count == 68, "receive filled a burst that has no room for a whole packet")
          var got: [[UInt8]] = []
          let expected = rig.frames(8)
          let came = try rig.wait { rig in
            got += try rig.queue.receive()
            return got.count >= 8
          }
          try require(came && got == expected, "frames were lost when the burst had no room")
          try rig.stop()
        }
      ),
    ]
  }

  static var transmitChecks: [Check] {
    [
      (
        "transmit: bursts of 1 to 64, in one to four pieces",
        { bench in
          var rig = try Rig<D>(bench)
          var number = 0
          for count in 1...64 {
            let pieces = 1 + count % 4
            try rig.send(
              rig.outgoing(count, from: number), pieces: pieces, burst: min(count, 48))
            number += count
          }
          let statistics = rig.queue.pair.statistics
          try require(
            statistics.sentPackets == UInt64(number)
              && statistics.sentBytes == UInt64(number * 64) && statistics.sendErrors == 0,
            "statistics say \(statistics.sentPackets) packets of \(number)")
          try rig.stop()
        }
      ),
      (
        "transmit: frames of every length and number of pieces",
        { bench in
          var rig = try Rig<D>(bench)
          let lengths = Array(stride(from: 60, to: rig.largestFrame, by: 97)) + [rig.largestFrame]
          for (number, length) in lengths.enumerated() {
            try rig.send(
              rig.outgoing(2, from: 2 * number, byteCount: length), pieces: 1 + number % 12)
          }
          try rig.stop()
        }
      ),
      (
        "transmit: jumbo frames",
        { bench in
          var rig = try Rig<D>(bench, mtu: 9000)
          guard rig.driver.interface.mtu >= 4000 else {
            throw NotPossible(
              reason: "driver and device have an MTU of \(rig.driver.interface.mtu)")
          }
          for pieces in [1, 2, 5] {
            try rig.send(rig.outgoing(20, byteCount: rig.largestFrame), pieces: pieces)
          }
          try rig.stop()
        }
      ),
      (
        "transmit: a ring that wraps many times",
        { bench in
          var rig = try Rig<D>(bench, ringSize: 16)
          let count = bench.model == nil ? 3000 : 66_000
          var number = 0
          while number < count {
            try rig.send(rig.outgoing(500, from: number))
            number += 500
          }
          try rig.stop()
        }
      ),
      (
        "transmit: nothing is completed before it is sent",
        { bench in
          var rig = try Rig<D>(bench)
          guard bench.setStalled(true) else {
            throw NotPossible(reason: "a real device sends when it likes")
          }
          defer { _ = bench.setStalled(false) }
          let frames = rig.outgoing(8)
          for pieces in [1, 3] {
            _ = bench.setStalled(true)
            let taken = try rig.queue.send(frames, pieces: pieces)
            let early = try rig.queue.complete()
            try require(taken == 8 && early == 0, "\(early) packets were completed and not sent")
            _ = bench.setStalled(false)
            var seen: [[UInt8]] = []
            _ = try rig.wait { rig in
              _ = try rig.queue.complete()
              seen += rig.bench.takeSent()
              return rig.queue.inFlight.isEmpty && seen.count >= 8
            }
            try require(seen == frames, "\(seen.count) frames of 8 left, or in another order")
          }
          try rig.stop()
        }
      ),
      (
        "transmit: a full ring leaves the rest in the burst",
        { bench in
          var rig = try Rig<D>(bench, ringSize: 16)
          var taken = 0
          for _ in 0..<4 { taken += try rig.queue.send(rig.outgoing(40, from: taken), pieces: 2) }
          try require(taken < 160 || bench.model == nil, "a ring of 16 took 160 packets at once")
          var seen: [[UInt8]] = []
          let expected = taken
          let came = try rig.wait { rig in
            _ = try rig.queue.complete()
            seen += rig.bench.takeSent()
            return rig.queue.inFlight.isEmpty && seen.count >= expected
          }
          try require(
            came && seen.count == taken, "\(seen.count) frames left of \(taken) that were taken")
          try rig.send(rig.outgoing(40, from: 1000))
          try rig.stop()
        }
      ),
      (
        "transmit: what cannot be sent is completed and counted",
        { bench in
          var rig = try Rig<D>(bench)
          let tooLong = [[UInt8]](repeating: [UInt8](repeating: 2, count: 12_000), count: 1)
          let tooShort = [[UInt8]](repeating: [UInt8](repeating: 2, count: 8), count: 1)
          let before = rig.queue.pair.statistics.sendErrors
          var refused = UInt64(1)
          _ = try rig.queue.send(tooShort)
          if rig.largestFrame < 11_000 && rig.driver.interface.offloads.contains(.transmitChecksum)
          {
            _ = try rig.queue.send(
              rig.outgoing(1),
              metadata: Offload(needsChecksum: true, checksumStart: 60, checksumOffset: 60))
            refused += 1
          }
          if D.receiveBufferBytes != nil {
            _ = try rig.queue.send(tooLong)
            refused += 1
          }
          let came = try rig.wait { rig in
            _ = try rig.queue.complete()
            return rig.queue.inFlight.isEmpty
          }
          try require(came, "refused packets are not completed")
          let counted = rig.queue.pair.statistics.sendErrors - before
          try require(counted == refused, "\(counted) refused packets were counted of \(refused)")
          try require(bench.takeSent().isEmpty, "a packet that cannot be sent was sent")
          try rig.send(rig.outgoing(10))
          try rig.stop()
        }
      ),
      (
        "transmit: checksums are finished by the device",
        { bench in
          var rig = try Rig<D>(bench)
          guard rig.driver.interface.offloads.contains(.transmitChecksum) else {
            throw NotPossible(reason: "driver and device have agreed on no checksums")
          }
          for (pieces, length) in [(1, 100), (2, 101), (3, 640), (4, 1499)] {
            let frame = TestFrame.unfinished(byteCount: length, from: rig.address)
            let offload = Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 6)
            _ = try rig.queue.send([frame], pieces: pieces, metadata: offload)
            var seen: [[UInt8]] = []
            _ = try rig.wait { rig in
              _ = try rig.queue.complete()
              seen += rig.bench.takeSent()
              return !seen.isEmpty && rig.queue.inFlight.isEmpty
            }
            try require(
              seen == [TestFrame.finished(frame)],
              "the checksum of \(length) bytes in \(pieces) pieces is wrong")
          }
          try rig.stop()
        }
      ),
      (
        "both directions at once",
        { bench in
          var rig = try Rig<D>(bench, ringSize: 64)
          for round in 0..<50 {
            try rig.queue.post(64)
            let incoming = rig.frames(20, from: 20 * round)
            let outgoing = rig.outgoing(20, from: 20 * round)
            bench.inject(incoming)
            let taken = try rig.queue.send(outgoing)
            try require(taken == 20, "an empty ring of 64 took \(taken) packets of 20")
            var got: [[UInt8]] = []
            var seen: [[UInt8]] = []
            let done = try rig.wait { rig in
              got += try rig.queue.receive()
              _ = try rig.queue.complete()
              seen += rig.bench.takeSent()
              return got.count >= 20 && seen.count >= 20 && rig.queue.inFlight.isEmpty
            }
            try require(
              done && got == incoming && seen == outgoing,
              "round \(round): \(got.count) frames of 20 came, \(seen.count) of 20 left"
                + (got == incoming ? "" : ", those that came are wrong")
                + (seen == outgoing ? "" : ", those that left are wrong"))
          }
          try rig.stop()
        }
      ),
    ]
  }
}
