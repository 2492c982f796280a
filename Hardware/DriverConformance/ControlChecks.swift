import CLinux
import Driver
import Glibc
import Memory
import PCI

/// An eventfd, closed with the value.
private struct Event: ~Copyable {
  let descriptor = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))

  deinit { close(descriptor) }

  /// How often it was signalled since the last call.
  func take() -> UInt64 {
    var count: UInt64 = 0
    return read(descriptor, &count, 8) == 8 ? count : 0
  }

  func signal(_ count: UInt64) {
    var count = count
    _ = write(descriptor, &count, 8)
  }
}

extension ConformanceSuite where D: ~Copyable {
  static var controlChecks: [Check] {
    [
      (
        "two queue pairs share what comes and both send",
        { bench in
          var rig = try Rig<D>(bench, pairs: 2)
          guard rig.second != nil else {
            throw NotPossible(reason: "driver and device have one queue pair")
          }
          try rig.queue.post(256)
          try rig.second?.post(256)
          bench.inject(rig.frames(200))
          var got = 0
          let came = try rig.wait { rig in
            got += try rig.queue.receive().count
            got += try rig.second?.receive().count ?? 0
            return got >= 200
          }
          try require(came, "\(got) frames of 200 came on two pairs")
          let outgoing = rig.outgoing(40)
          let first = try rig.queue.send(Array(outgoing[..<20]))
          let second = try rig.second?.send(Array(outgoing[20...])) ?? 0
          try require(
            first == 20 && second == 20, "empty rings took \(first) and \(second) packets of 20")
          var seen = 0
          let left = try rig.wait { rig in
            _ = try rig.queue.complete()
            _ = try rig.second?.complete()
            seen += rig.bench.takeSent().count
            return seen >= 40 && rig.queue.inFlight.isEmpty
              && rig.second?.inFlight.isEmpty == true
          }
          try require(left, "\(seen) frames of 40 left on two pairs")
          try rig.stop()
        }
      ),
      (
        "addresses: only what was asked for is received",
        { bench in
          var rig = try Rig<D>(bench)
          let other: [UInt8] = [0x02, 0, 0, 0, 0, 0x77]
          let group: [UInt8] = [0x01, 0, 0x5e, 0x01, 0x02, 0x03]
          func frames(_ number: Int) -> [[UInt8]] {
            [other, group, rig.address].map { TestFrame.make(number, byteCount: 64, to: $0) }
          }
          func arrivals(_ rig: inout Rig<D>, _ sent: [[UInt8]]) throws -> Set<[UInt8]> {
            try rig.queue.post(64)
            rig.bench.inject(sent)
            var got: [[UInt8]] = []
            _ = try rig.wait { rig in
              got += try rig.queue.receive()
              return got.count == sent.count
            }
            return Set(got)
          }
          var sent = frames(1)
          var got = try arrivals(&rig, sent)
          try require(got.contains(sent[2]), "a frame to the function's own address was lost")
          let isFiltered = !got.contains(sent[0])
          do throws(DriverError) {
            try rig.driver.setPromiscuous(true)
          } catch {
            throw NotPossible(reason: "\(error)")
          }
          sent = frames(2)
          got = try arrivals(&rig, sent)
          try require(got == Set(sent), "\(got.count) frames of 3 came in promiscuous mode")
          try rig.driver.setPromiscuous(false)
          let b = group
          try rig.driver.setFilter(
            unicast: [], multicast: [MACAddress((b[0], b[1], b[2], b[3], b[4], b[5]))])
          sent = frames(3)
          got = try arrivals(&rig, sent)
          try require(got.contains(sent[1]), "a frame to a group that was asked for was lost")
          try require(
            !isFiltered || !got.contains(sent[0]), "promiscuous mode does not go off again")
          try rig.driver.setFilter(
            unicast: [MACAddress((0x02, 0, 0, 0, 0, 0x77))], multicast: [])
          sent = frames(4)
          got = try arrivals(&rig, sent)
          try require(got.contains(sent[0]), "a frame to a further address was lost")
          try rig.driver.setPromiscuous(true)
          try rig.driver.setFilter(unicast: [], multicast: nil)
          sent = frames(5)
          got = try arrivals(&rig, sent)
          try require(got == Set(sent), "a filter ends promiscuous mode")
          try rig.driver.setPromiscuous(false)
          sent = frames(6)
          got = try arrivals(&rig, sent)
          try require(got.contains(sent[1]), "a frame to a group was lost when all were asked for")
          try rig.stop()
        }
      ),
      (
        "link: flaps are noticed and traffic goes on",
        { bench in
          guard let model = bench.model else {
            throw NotPossible(reason: "the cable of a real device cannot be pulled from here")
          }
          var rig = try Rig<D>(bench)
          for round in 0..<10 {
            for isUp in [false, true] {
              model.setLink(up: isUp)
              var changed = false
              let noticed = try rig.wait { rig in
                if try rig.driver.handleConfigurationChange() { changed = true }
                return rig.driver.interface.linkIsUp == isUp
              }
              try require(noticed && changed, "a link that went \(isUp ? "up" : "down") was missed")
              let again = try rig.driver.handleConfigurationChange()
              try require(!again, "a change of the link was reported twice")
            }
            try rig.receive(rig.frames(10, from: 10 * round))
            try rig.send(rig.outgoing(10, from: 10 * round))
          }
          try rig.stop()
        }
      ),
    ]
  }

  static var interruptChecks: [Check] {
    [
      (
        "interrupts: one comes when it was asked for, none when not",
        { bench in
          let configuration = Event()
          let event = Event()
          var rig = try Rig<D>(
            bench,
            interrupts: InterruptPlan(
              configuration: configuration.descriptor, queues: [event.descriptor]))
          try rig.queue.post(64)
          rig.queue.pair.disarmInterrupts()
          _ = event.take()
          // One may come all the same: a device may interrupt when it need not.
          var got: [[UInt8]] = []
          var unasked: UInt64 = 0
          for number in 0..<10 {
            rig.queue.pair.disarmInterrupts()
            bench.inject(rig.frames(1, from: number))
            got += try rig.drain(1)
            unasked += event.take()
          }
          try require(unasked <= 2, "\(unasked) interrupts came for 10 frames, and none was wanted")
          try rig.queue.post(64)
          var maySleep = rig.queue.pair.armInterrupts(transmit: false)
          try require(maySleep, "an idle queue says that it may not sleep")
          bench.inject(rig.frames(1, from: 10))
          let fired = try rig.wait { _ in event.take() > 0 }
          try require(fired, "a frame came and no interrupt")
          rig.queue.pair.disarmInterrupts()
          got += try rig.drain(1)
          // Something that came before the queue was armed forbids sleep.
          bench.inject(rig.frames(1, from: 11))
          for _ in 0..<20 { _ = bench.step() }
          if bench.model != nil {
            maySleep = rig.queue.pair.armInterrupts(transmit: false)
            try require(
              !maySleep || event.take() > 0, "a frame is there, and the queue says it may sleep")
          }
          got += try rig.drain(1)
          rig.queue.pair.disarmInterrupts()
          let frames = rig.frames(12)
          try require(got == frames, "frames were lost around interrupts")
          // Sent packets interrupt where that was asked for.
          _ = event.take()
          _ = rig.queue.pair.armInterrupts(transmit: true)
          _ = try rig.queue.send(rig.outgoing(1))
          let sent = try rig.wait { _ in event.take() > 0 }
          try require(sent, "a packet was sent and no interrupt came")
          rig.queue.pair.disarmInterrupts()
          let completed = try rig.wait { rig in
            _ = try rig.queue.complete()
            return rig.queue.inFlight.isEmpty
          }
          try require(completed, "a packet was not completed")
          try rig.stop()
          _ = event.take()
          bench.inject(rig.frames(2))
          for _ in 0..<20 { _ = bench.step() }
          try require(event.take() == 0, "interrupts come after the driver's stop")
        }
      ),
      (
        "interrupts: many rounds of sleep lose none",
        { bench in
          let configuration = Event()
          let event = Event()
          var rig = try Rig<D>(
            bench,
            interrupts: InterruptPlan(
              configuration: configuration.descriptor, queues: [event.descriptor]))
          for round in 0..<300 {
            try rig.queue.post(64)
            if rig.queue.pair.armInterrupts(transmit: false) {
              bench.inject(rig.frames(1 + round % 3, from: 3 * round))
              let woken = try rig.wait { _ in event.take() > 0 }
              try require(woken, "no interrupt in round \(round)")
            }
            rig.queue.pair.disarmInterrupts()
            _ = try rig.drain(1 + round % 3)
          }
          try rig.stop()
        }
      ),
      (
        "interrupts: storms and lost ones do no harm",
        { bench in
          let configuration = Event()
          let event = Event()
          var rig = try Rig<D>(
            bench,
            interrupts: InterruptPlan(
              configuration: configuration.descriptor, queues: [event.descriptor]))
          for round in 0..<20 {
            event.signal(1000)
            configuration.signal(1000)
            _ = try rig.driver.handleConfigurationChange()
            _ = rig.queue.pair.armInterrupts(transmit: true)
            // Whatever was signalled is thrown away: polling finds what came.
            _ = event.take()
            rig.queue.pair.disarmInterrupts()
            try rig.receive(rig.frames(8, from: 8 * round))
            try rig.send(rig.outgoing(8, from: 8 * round))
          }
          try rig.stop()
        }
      ),
    ]
  }
}

extension Rig where D: ~Copyable {
  /// Receives until `count` frames have come, or nothing comes any more.
  mutating func drain(_ count: Int) throws -> [[UInt8]] {
    var got: [[UInt8]] = []
    let came = try wait { rig in
      got += try rig.queue.receive()
      return got.count >= count
    }
    try require(came, "\(got.count) frames came of \(count)")
    return got
  }
}
