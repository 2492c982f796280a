import Testing

@testable import Memory

@Suite struct SegmentLedgerTests {
  @Test func segmentsGoRoundAndNoneIsLost() throws {
    var ledger = SegmentLedger(firstUnit: 8, byteCount: 64 << 10)
    var burst = Burst(capacity: 64)
    var random = SystemRandomNumberGenerator()
    var withDevice: [UInt32] = []
    var withInstance: [UInt32] = []
    for _ in 0..<10_000 {
      switch Int.random(in: 0..<4, using: &random) {
      case 0:
        ledger.lend(upTo: 5, into: &burst)
        for index in 0..<burst.count { withDevice.append(burst[index].segment) }
        burst.removeAll()
      case 1:
        if let segment = withDevice.popLast() {
          ledger.give(segment)
          withInstance.append(segment)
        }
      case 2:
        if let segment = withInstance.popLast() { try ledger.takeBack(segment) }
      default:
        if let segment = withDevice.popLast() { ledger.reclaim(segment) }
      }
      let counts = (ledger.hostCount, ledger.deviceCount, ledger.instanceCount)
      #expect(counts.1 == withDevice.count && counts.2 == withInstance.count)
      #expect(counts.0 + counts.1 + counts.2 == 32)
      #expect(Set(withDevice + withInstance).count == withDevice.count + withInstance.count)
    }
    ledger.reclaimFromInstance()
    let left = ledger.instanceCount
    #expect(left == 0)
  }

  @Test func bytesLieInTheirSegmentAtEightColours() {
    var ledger = SegmentLedger(firstUnit: 0, byteCount: 64 << 10)
    var burst = Burst(capacity: 64)
    ledger.lend(upTo: 64, into: &burst)
    var offsets: Set<UInt32> = []
    for index in 0..<burst.count {
      let slot = burst[index]
      offsets.insert(slot.offset)
      #expect(slot.offset + slot.length == 2048)
      #expect(slot.segment % 2 == 0)
    }
    #expect(offsets == Set((0..<8).map { $0 * 64 }))
  }

  @Test func whatTheInstanceCannotGiveBackIsRefused() throws {
    var ledger = SegmentLedger(firstUnit: 8, byteCount: 8 << 10)
    var burst = Burst(capacity: 4)
    ledger.lend(upTo: 2, into: &burst)
    let (first, second) = (burst[0].segment, burst[1].segment)
    ledger.give(first)
    // Before its part, behind its end, not a segment's first unit, not its own, and twice.
    for (segment, error) in [
      (0, LedgerError.noSegment(0)), (16, .noSegment(16)), (.max, .noSegment(.max)),
      (first + 1, .noSegment(first + 1)), (second, .notTheInstances(second)),
    ] as [(UInt32, LedgerError)] {
      var seen: LedgerError?
      do throws(LedgerError) { try ledger.takeBack(segment) } catch { seen = error }
      #expect(seen == error)
    }
    try ledger.takeBack(first)
    var seen: LedgerError?
    do throws(LedgerError) { try ledger.takeBack(first) } catch { seen = error }
    #expect(seen == .notTheInstances(first))
    let counts = (ledger.hostCount, ledger.deviceCount, ledger.instanceCount)
    #expect(counts == (3, 1, 0))
  }

  @Test func burstsMoveAsSingleSegmentsDo() throws {
    var ledger = SegmentLedger(firstUnit: 64, byteCount: 64 * 2048)
    var burst = Burst(capacity: 64)
    ledger.lend(upTo: 40, into: &burst)
    // Metadata names no segment.
    burst.append(Offload().slot)
    ledger.give(burst)
    var counts = [ledger.hostCount, ledger.deviceCount, ledger.instanceCount]
    #expect(counts == [24, 0, 40])
    burst.truncate(to: 40)
    let twice = burst[3]
    burst.append(twice)
    var seen: LedgerError?
    do throws(LedgerError) { try ledger.takeBack(&burst) } catch { seen = error }
    #expect(seen == .notTheInstances(twice.segment))
    // All before the wrong one have come back, each once.
    counts = [ledger.hostCount, ledger.deviceCount, ledger.instanceCount]
    #expect(counts == [64, 0, 0])
    burst.removeAll()
    for foreign: UInt32 in [0, 63, 65, 64 + 128, 1 << 31, .max] {
      burst.append(Descriptor(segment: foreign))
      seen = nil
      do throws(LedgerError) { try ledger.takeBack(&burst) } catch { seen = error }
      #expect(seen == .noSegment(foreign))
      burst.removeAll()
    }
  }
}
