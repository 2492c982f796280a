import Statistics
import Testing

@testable import Top

@Suite struct FiguresTests {
  @Test func numbersAreShort() {
    let shown = [0, 7.4, 999.4, 999.6, 1234, 99_949, 99_960, 999_499, 999_600, 12_345_678]
      .map(Figures.short)
    #expect(
      shown == ["0", "7", "999", "1.0k", "1.2k", "99.9k", "100k", "999k", "1.0M", "12.3M"])
    #expect(Figures.bytes(0) == "0 B" && Figures.bytes(64 << 20) == "64 MiB")
    #expect(Figures.bytes(1536) == "1.5 KiB" && Figures.bytes(2 << 40) == "2048 GiB")
    #expect(Figures.time(nanoseconds: 830) == "830 ns")
    #expect(Figures.time(nanoseconds: 12_400) == "12.4 us")
    #expect(Figures.time(nanoseconds: 1_250_000_000) == "1.3 s")
  }

  @Test func aSparklineIsAsWideAsItShouldBe() {
    #expect(Figures.sparkline([0, 1, 2, 4], width: 6, isUnicode: true) == "  ▁▃▅█")
    #expect(Figures.sparkline([1, 9, 9], width: 2, isUnicode: false) == "##")
    #expect(Figures.sparkline([], width: 3, isUnicode: false) == "   ")
    #expect(Figures.sparkline([0, 0], width: 2, isUnicode: true) == "▁▁")
  }
}

@Suite struct RunHistoryTests {
  private let web = RunCounters.Instance(slot: 0, id: 256, name: "web", pid: 11)
  private let dns = RunCounters.Instance(slot: 1, id: 257, name: "dns", pid: 12)

  private func history() -> RunHistory {
    var history = RunHistory()
    for second in 0..<3 as Range<UInt64> {
      history.add(
        RunHistory.Reading(
          time: 5_000_000_000 + second * 1_000_000_000,
          counters: [
            ("rx_q0_packets", 100 + second * 1000), ("rx_q0_bytes", second * 64_000),
            ("tx_q0_packets", second), ("rx_q0_segments_device", 200),
            ("q0_ring_level_receive", 7), ("q0_ring_peak_receive", 90),
            ("rx_i0_packets", second * 900), ("rx_i0_dropped_ring_full", second * 4),
            ("rx_i1_packets", second * 100), ("i0_memory_bytes", 2 << 20), ("host_process", 7),
            ("rx_dropped_unclaimed", 3), ("host_restarts_hung", 1), ("host_restarts", 1),
            ("rule_deny_packets", second),
          ],
          instances: [web, dns], processorTime: [7: second * 500_000_000, 11: second * 250_000_000])
      )
    }
    return history
  }

  @Test func ratesAreThoseOfTheLastReading() {
    let history = history()
    #expect(history.queues.count == 1)
    #expect(history.queues[0].receivedPackets == 1000 && history.queues[0].sentPackets == 1)
    #expect(history.queues[0].levels["device"] == 200)
    #expect(history.queues[0].levels["level receive"] == 7)
    #expect(history.instances.map(\.name) == ["web", "dns"])
    #expect(history.instances[0].receivedPackets == 900 && history.instances[0].drops == 4)
    #expect(history.instances[0].processor == 0.25 && history.instances[1].processor == nil)
    #expect(history.instances[0].memory == 2 << 20)
    #expect(history.processors.map(\.name) == ["host"] && history.processors[0].share == 0.5)
    #expect(
      history.drops == [
        RunHistory.Drop(what: "rx dropped, ring full, web", total: 8, rate: 4),
        RunHistory.Drop(what: "rx dropped, unclaimed", total: 3, rate: 0),
      ])
    #expect(history.total.receivedPackets == 1000 && history.total.drops == 4)
    #expect(history.trends["rx"] == [64_000, 64_000])
    #expect(RunHistory.restarts(history.values) == 1)
  }

  @Test func rulesAreShownByWhatTheyMatchNow() {
    var history = RunHistory()
    for second in 0..<2 as Range<UInt64> {
      let counters: [(name: String, value: UInt64)] = [
        ("rule_q0_packets", 900), ("rule_q0_bytes", 900), ("rule_q0_limited", 0),
        ("rule_q0_absent", 0), ("rule_web_1_packets", 10 + second * 500),
        ("rule_web_1_bytes", second * 64_000), ("rule_web_1_limited", second * 7),
        ("rule_web_1_absent", second * 2), ("captures", 1), ("capture_0_lost", 3),
      ]
      history.add(
        RunHistory.Reading(time: 5_000_000_000 + second * 1_000_000_000, counters: counters))
    }
    #expect(
      history.rules == [
        RunHistory.RuleRow(
          name: "web_1", packets: 500, bytes: 64_000, limited: 7, absent: 2, total: 510),
        RunHistory.RuleRow(name: "q0", total: 900),
      ])
    // The queue of that name is none.
    #expect(history.queues.isEmpty)
    var view = TopView()
    view.hasColours = false
    let text = view.lines(history).joined(separator: "\n")
    #expect(text.contains("web_1") && text.contains("captures 1, 3 packets lost"), "\(text)")
  }

  @Test func aRunThatBeginsAnewHasNoRateBelowNothing() {
    var history = history()
    history.add(
      RunHistory.Reading(time: 9_000_000_000, counters: [("rx_q0_packets", 1)], instances: []))
    #expect(history.queues[0].receivedPackets == 0 && history.instances.isEmpty)
    #expect(history.trends["i0"] == nil)
  }

  @Test func aPictureFillsEveryTerminalAndNoMore() {
    let history = history()
    for (columns, rows) in [(80, 24), (120, 40), (200, 60), (1, 1), (20, 5), (79, 8), (400, 200)] {
      for (colours, help) in [(true, false), (false, false), (false, true)] {
        var view = TopView()
        (view.columns, view.rows, view.hasColours, view.showsHelp) = (columns, rows, colours, help)
        view.title = "emulated virtio-net"
        let lines = view.lines(history).map(Self.plain)
        #expect(help ? lines.count <= rows : lines.count == rows)
        #expect(lines.allSatisfy { $0.count <= columns }, "\(columns) x \(rows)")
        if !colours { #expect(view.lines(history) == lines) }
      }
    }
  }

  @Test func everyPartHasItsPlaceAt80x24() {
    var view = TopView()
    view.hasColours = false
    let text = view.lines(history()).joined(separator: "\n")
    for part in [
      "martlet top", "instances, by received", "web", "dns", "queues", "dropped, by reason",
      "rx dropped, ring full, web", "rules: ", "deny", "q quit", "restarts 1", "host 50 %",
    ] { #expect(text.contains(part), "\(part)\n\(text)") }
  }

  @Test func instancesAreSortedAndScrolled() {
    var view = TopView()
    view.hasColours = false
    func order() -> [String] {
      view.lines(history()).map { String($0.prefix(3)) }.filter { ["web", "dns"].contains($0) }
    }
    #expect(order() == ["web", "dns"])
    view.sort = .name
    #expect(order() == ["dns", "web"])
    view.isReversed = true
    #expect(order() == ["web", "dns"])
    view.sort = .slot
    view.isReversed = false
    view.rows = 8
    #expect(order() == ["web"])
    view.scroll = 1
    #expect(order() == ["dns"])
    view.scroll = 60
    #expect(order() == ["dns"])
  }

  private static func plain(_ line: String) -> String {
    line.replacing(/\u{1b}\[[0-9]*m/, with: "")
  }
}

@Suite struct KeyTests {
  private func keys(_ text: String) -> [Terminal.Key] {
    var typed = Array(text.utf8)[...]
    var keys: [Terminal.Key] = []
    while let key = Terminal.nextKey(&typed) { keys.append(key) }
    return keys
  }

  @Test func keysAreRead() {
    #expect(keys("q") == [.character("q")])
    #expect(keys("\u{1b}[A\u{1b}OB") == [.up, .down])
    #expect(keys("\u{1b}[6~\u{1b}") == [.pageDown, .escape])
    #expect(keys("\u{1b}[1;5C\u{7f}\u{e9}x") == [.character("x")])
    #expect(keys(" h") == [.character(" "), .character("h")])
    #expect(keys("\u{1b}[").isEmpty && keys("").isEmpty)
  }
}

@Suite struct ProcessorTimeTests {
  @Test func aNameMayHaveAnythingInIt() {
    let stat = "7 (a) b ( 1) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 99"
    #expect(ProcessorTime.nanoseconds(stat) == 2_000_000_000)
    #expect(ProcessorTime.nanoseconds("7 (a) S 1") == nil)
    #expect(ProcessorTime.of([UInt64(UInt32.max)]).isEmpty)
  }
}
