import Channel
import Memory
import Stage
import Testing

/// Packets that are held, made, copied and turned round.
@Suite struct HoldingTests {
  @Test func aHeldPacketGoesWhenItIsReleased() throws {
    var held: [HeldPacket] = []
    var bench = try ClosureStage.bench { packet, output in
      if packet.byteCount == 60 {
        held.append(packet.token)
        return .hold
      }
      if packet.byteCount == 70 {
        expect(output.withHeld(held[1]) { $0.store8(9, at: 0) } != nil)
        expect(output.release(held[1], .hold) && output.release(held[1]))
        expect(output.release(held[0], .turn))
        // Once each.
        expect(!output.release(held[0]) && !output.release(held[1]))
        expect(output.withHeld(held[0]) { _ in } == nil)
      }
      return .drop
    }
    let one = [UInt8](repeating: 1, count: 60)
    for byte in 1...3 as ClosedRange<UInt8> {
      expect(bench.send(BenchPacket([UInt8](repeating: byte, count: 60), .receive)).isEmpty)
    }
    #expect(bench["holding"] == 3 && bench["rx_held"] == 3)
    let out = bench.send(BenchPacket([UInt8](repeating: 0, count: 70), .receive, at: 5))
    #expect(out.map(\.way) == [.receive, .transmit] && out.map(\.time) == [5, 5])
    #expect(out[0].bytes == [9] + [UInt8](repeating: 2, count: 59) && out[1].bytes == one)
    // The rest goes on when the stage ends.
    let rest = bench.stop()
    #expect(rest.map(\.bytes) == [[UInt8](repeating: 3, count: 60)] && rest[0].way == .receive)
    #expect(
      bench["rx_passed"] == 2 && bench["rx_turned"] == 1 && bench["rx_dropped"] == 1
        && bench["holding"] == 0)
  }

  @Test func whatIsHeldGoesOnInItsOrder() throws {
    var bench = try ClosureStage.bench { _, _ in .hold }
    for number in 0..<40 as Range<UInt8> {
      _ = bench.send(BenchPacket([number] + Frame().bytes.dropFirst(), .transmit))
    }
    expect(bench.stop().map { $0.bytes[0] } == Array(0..<40))
  }

  @Test func packetsAreMadeAndCopiedAsLongAsThereAreSpares() throws {
    let metadata = Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 6)
    var bench = try ClosureStage.bench { packet, output in
      for number in 0..<StagedPacket.spares / 2 {
        expect(output.clone(packet, .transmit))
        expect(
          output.make(.receive, byteCount: 100) { made in
            expect(made.byteCount == 100 && made.room > 0)
            expect(made.bytes.indices.allSatisfy { made.bytes[$0] == 0 })
            made.store8(UInt8(number), at: 99)
          })
      }
      expect(!output.clone(packet, .transmit))
      expect(!output.make(.none, byteCount: 1) { _ in })
      packet.store8(0xff, at: 0)
      return .drop
    }
    let frame = Frame().bytes
    // Again and again: spares come back.
    for _ in 0..<20 {
      let out = bench.send(
        BenchPacket(frame, .receive, metadata: metadata, isChecked: true, mark: 7))
      #expect(out.count == StagedPacket.spares && out.allSatisfy { $0.isMade })
      #expect(out[0].bytes == frame && out[0].way == .transmit && out[0].metadata == metadata)
      #expect(out[0].mark == 7 && out[0].isChecked)
      #expect(out[1].bytes.count == 100 && out[1].way == .receive && out[1].mark == 0)
      #expect(out[7].bytes[99] == 3 && out[7].metadata == Offload())
    }
    #expect(bench["no_spare"] == 40 && bench["rx_made"] == 80 && bench["tx_made"] == 80)
  }

  @Test func whatIsTooLongIsNotMadeOrCopied() throws {
    var bench = try ClosureStage.bench { packet, output in
      expect(packet.isPartial != output.clone(packet, .receive))
      expect(output.make(.receive, byteCount: 2176) { _ in })
      expect(!output.make(.receive, byteCount: 2177) { _ in })
      expect(!output.make(.receive, byteCount: -1) { _ in })
      return .pass
    }
    expect(bench.send(BenchPacket(Frame().bytes, .transmit, seenBytes: 20)).count == 2)
    expect(bench.send(BenchPacket(Frame().bytes, .transmit)).count == 3)
    expect(bench.send(BenchPacket([UInt8](repeating: 0, count: 5000), .transmit)).isEmpty)
    expect(bench.refused == 1)
  }

  /// A stage that is called at its deadlines, and never before.
  private struct Clock: PacketStage {
    var nextDeadline: UInt64 = 100
    var seen: [UInt64] = []
    let counterNames = ["ticks"]
    init(_ configuration: String, _ interface: StageInterface) {}
    mutating func process(_ packet: inout StagePacket, _ output: inout StageOutput) -> Verdict {
      .pass
    }
    mutating func service(_ output: inout StageOutput) {
      expect(output.now == nextDeadline)
      nextDeadline += 100
      output.counters[0] += 1
    }
  }

  @Test func timeIsWhatThePacketsSay() throws {
    var bench = try StageBench<Clock>()
    _ = bench.send(BenchPacket(Frame().bytes, .receive, at: 99))
    #expect(bench["ticks"] == 0)
    _ = bench.send(BenchPacket(Frame().bytes, .receive, at: 1000))
    #expect(bench["ticks"] == 10 && bench.now == 1000)
    // A packet of before is of now.
    let out = bench.send(BenchPacket(Frame().bytes, .receive, at: 5))
    #expect(out[0].time == 1000)
  }
}
