import Testing

@testable import Benchmarks

@Suite struct ContestTests {
  @Test func sidesTakeTurnsAndDisturbedSamplesAreTakenAgain() throws {
    var order = ""
    var shares = [0.99, 0.5, 0.99, 0.2, 0.3, 0.4]
    let contest = Contest(
      [.init("row", "Mpps", isRate: true)],
      ours: {
        order += "o"
        return Sample([Double(order.count)], cpuShare: shares.removeFirst())
      },
      peer: (
        "peer",
        {
          order += "p"
          return Sample([2], cpuShare: 1)
        }
      ))
    let row = try contest.measure(rounds: 3)[0]
    // The second round is repeated once; the third twice, and stays disturbed.
    #expect(order == "opoopooop")
    #expect(row.repeated == 3)
    #expect(row.disturbed == 1)
    #expect(row.rounds == 3)
  }

  @Test func ratiosAreAboveOneWhereOursIsBetter() {
    func row(isRate: Bool) -> BenchmarkRow {
      BenchmarkRow(
        name: "a\"b", unit: "ns", isRate: isRate, ours: Spread([1, 2, 3]), peer: "peer",
        peerSpread: Spread([4]), control: Spread([1]), rounds: 3, repeated: 0, disturbed: 0)
    }
    #expect(row(isRate: false).ratio == 2)
    #expect(row(isRate: true).ratio == 0.5)
    #expect(row(isRate: false).controlRatio == 0.5)
    var report = BenchmarkReport(withoutPeer: "not installed")
    report.rows = [row(isRate: false)]
    #expect(report.json.contains("{\"name\": \"a\\\"b\", \"unit\": \"ns\", \"value\": 2.0, "))
    #expect(report.json.contains("\"ratio\": 2.0, \"rounds\": 3, \"low\": 1.0, \"high\": 3.0"))
    report.rows[0].peerSpread = nil
    #expect(report.json.contains("\"peer\": \"not installed\", \"peerValue\": null"))
    #expect(report.table.contains("peer: not installed"))
  }
}

@Suite struct InstructionTests {
  /// Two functions; the call's cost is not the caller's own.
  private let profile = """
    events: Ir
    fn=(1) caller
    10 5
    cfn=(2) callee
    calls=3 0
    10 600
    +1 7
    fn=(2)
    20 600
    """

  @Test func costsAreEachFunctionsOwn() {
    #expect(CallgrindProfile(profile[...]).instructions == ["caller": 12, "callee": 600])
  }

  @Test func aRiseIsNamedAndATableReadsBackAsWritten() throws {
    let old = InstructionCount(
      loop: "loop", perPacket: 100,
      functions: [.init(name: "a b", perPacket: 60), .init(name: "c", perPacket: 40)])
    let table = try InstructionTable(text: InstructionTable([old]).text)
    #expect(table.counts == [old])
    var new = old
    new.perPacket = 105
    #expect(table.complaints(about: [new]) == [])
    new.perPacket = 110
    new.functions[1].perPacket = 50
    #expect(
      table.complaints(about: [new]) == [
        "loop: 110.0 instructions a packet, 100.0 are kept", "  +10.0 in c",
      ])
    new.loop = "other"
    #expect(table.complaints(about: [new]).count == 1)
    #expect(throws: InstructionTable.BadTable.self) { try InstructionTable(text: "loop\n") }
  }
}

@Suite struct SweepTests {
  private func row(_ name: String, _ value: Double, disturbed: Int = 0) -> BenchmarkRow {
    BenchmarkRow(
      name: name, unit: "Mpps", isRate: true, ours: Spread([value]), peer: "peer",
      peerSpread: Spread([10]), control: nil, rounds: 1, repeated: 0, disturbed: disturbed)
  }

  @Test func sizesTakeTurnsInEachRound() throws {
    var order = ""
    let contests = ["a", "b", "c"].map { name in
      Contest(
        [.init(name, "Mpps", isRate: true)],
        ours: {
          order += name
          return Sample([1], cpuShare: 1)
        })
    }
    let rows = try Contest.measure(contests, rounds: 2)
    #expect(order == "abcabc")
    #expect(rows.map(\.name) == ["a", "b", "c"])
  }

  @Test func aSweepIsATableWithItsReason() throws {
    var report = BenchmarkReport(withoutPeer: "not installed")
    report.rows = [row("sweep.ring.rx.64", 20)]
    #expect(report.sweepText.isEmpty)
    report.rows.append(row("sweep.ring.rx.4096", 5, disturbed: 2))
    let lines = report.sweepText.split(separator: "\n").map(String.init)
    #expect(
      lines[1].split(separator: " ") == ["64", "20.00", "50.0", "10.00", "100.0", "2.00", "-"])
    #expect(
      lines[2].split(separator: " ") == ["4096", "5.00", "200.0", "10.00", "100.0", "0.50", "2"])
    #expect(lines.last == Sweep.ring.reason)
    #expect(report.sweepPlots.map(\.fileName) == ["bench-sweep.ring.rx.svg"])
  }

  @Test func disturbedRowsAreNotOfferedToREADME() {
    var report = BenchmarkReport(withoutPeer: "not installed")
    report.rows = [
      row("pool.bulk1", 1), row("pool.bulk32", 2), row("memory.host", 3, disturbed: 1),
    ]
    #expect(report.markdown.contains("1.0 / 2.0 ns | peer 10.0 / 10.0 | 0.10 / 0.20 |"))
    #expect(report.markdown.hasSuffix("to be measured again: memory.host"))
  }
}
