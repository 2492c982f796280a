import Channel
import CoreMetrics
import Glibc
import MartletMetrics
import Memory
import MetricsTestKit
import Steering
import Testing

@testable import Statistics

@Suite struct RunCountersTests {
  @Test func countersAreReadWithoutAskingAgain() throws {
    let run = try PlayedRun()
    run.host.name(0, "rx_q0_packets")
    try run.serving {
      let counters = try RunCounters(socket: run.path)
      #expect(counters.summary["device"] == "played" && !counters.isOver)
      for value in 1...5 as ClosedRange<UInt64> {
        run.host.set(0, value)
        try counters.refresh()
        #expect(counters.read().first { $0.name == "rx_q0_packets" }?.value == value)
      }
      #expect(run.requests == 1 && counters.instances.isEmpty)
      // An instance has come.
      let instance = try CounterPage(capacity: 1)
      instance.name(0, "stack_rx_packets")
      run.lines.append(
        ("page of=instance slot=3 id=3 name=web pid=\(getpid()) entries=1", instance.descriptor))
      run.own.set(0, 1)
      try counters.refresh()
      #expect(run.requests == 2 && counters.instances.map(\.name) == ["web"])
      #expect(counters.read().contains { $0.name == "i3_stack_rx_packets" })
    }
  }

  @Test(arguments: [
    "page of=nobody entries=4", "page of=host entries=0", "page of=host entries=100000000",
    "page of=host", "page of=host entries=4 histograms=100000", "page of=instance entries=4",
    "page of=host entries=90000",
  ])
  func anAnswerThatMakesNoSenseIsRefused(_ line: String) throws {
    let run = try PlayedRun()
    run.lines.append((line, run.own.descriptor))
    run.serving {
      #expect(throws: AdministrationError.self) { _ = try RunCounters(socket: run.path) }
    }
  }

  /// While one set of rules takes the place of another, both pages count.
  @Test func rulesAreReadWhereTheyAreCounted() throws {
    let run = try PlayedRun()
    run.own.name(0, "rules_changes")
    let old = try RulePage("web 0 0 0 0\ngone 0 0 0 0\n", rules: 2)
    let new = try RulePage("dns 1 2 3 4\nweb 100 0 0 0\n", rules: 2)
    run.more = [(old.text, old.descriptors)]
    try run.serving {
      let counters = try RunCounters(socket: run.path)
      func rules() -> [String: UInt64] {
        Dictionary(uniqueKeysWithValues: counters.read().filter { $0.name.hasPrefix("rule_") })
      }
      old.set(.packets, rule: 0, queue: 1, 5)
      #expect(rules()["rule_web_packets"] == 5 && rules()["rule_gone_packets"] == 0)
      old.set(.packets, rule: 0, queue: 0, 2)
      try counters.refresh()
      #expect(rules()["rule_web_packets"] == 7 && run.requests == 1)
      run.more.append((new.text, new.descriptors))
      run.own.set(0, 1)
      try counters.refresh()
      new.set(.bytes, rule: 0, queue: 1, 40)
      new.set(.packets, rule: 1, queue: 0, 3)
      #expect(run.requests == 2 && rules().count == 8)
      #expect(rules()["rule_web_packets"] == 110 && rules()["rule_dns_bytes"] == 42)
      #expect(rules()["rule_dns_absent"] == 4)
      var page = PrometheusText(isUp: true)
      page.add(counters.read())
      #expect(page.text.contains("\nmartlet_rule_packets_total{rule=\"web\"} 110\n"))
    }
  }

  @Test(arguments: [
    "web 0 0 0", "we\"b 0 0 0 0", "web 0 0 0 -1", "web 0 0 0 0 0",
    String(repeating: "a 0 0 0 0\n", count: 100),
  ])
  func rulesThatMakeNoSenseAreRefused(_ list: String) throws {
    let run = try PlayedRun()
    let page = try RulePage(list, rules: 1)
    run.more = [(page.text, page.descriptors)]
    run.serving {
      #expect(throws: AdministrationError.self) { _ = try RunCounters(socket: run.path) }
    }
  }

  /// Of two queues.
  private final class RulePage {
    private let list: SharedText
    private let page: Arena
    private let rules: Int

    init(_ list: String, rules: Int) throws {
      self.list = try SharedText(list, name: "test")
      self.rules = rules
      page = try Arena(byteCount: 4096, pageSize: .ordinary, name: "test")
    }

    var text: String { "rules queues=2 bytes=\(list.byteCount) counters=4096" }
    var descriptors: [Int32] { [list.descriptor, page.descriptor] }

    func set(_ counter: RuleCounterLayout.Counter, rule: Int, queue: Int, _ value: UInt64) {
      let offset = RuleCounterLayout.offset(of: counter, rule: rule, queue: queue, rules: rules)
      page.address.storeBytes(of: value, toByteOffset: offset, as: UInt64.self)
    }
  }

  @Test func nobodyThereIsSaidClearly() {
    #expect(throws: AdministrationError.unreachable(path: "/tmp/martlet-none", errno: ENOENT)) {
      _ = try RunCounters(socket: "/tmp/martlet-none")
    }
  }

  @Test func programsGetThemByTheirMetricsSystem() throws {
    let run = try PlayedRun()
    run.host.name(0, "rx_q0_packets")
    run.host.name(1, "rx_q0_segments_host")
    run.host.name(2, "rx_q0_dropped_ring_full")
    run.host.histogramWriter(0, named: ["rx_q0_time_driver"]).record(5000, in: 0)
    let factory = TestMetrics()
    try run.serving {
      let metrics = try RunMetrics(socket: run.path, factory: factory)
      run.host.set(0, 100)
      run.host.set(1, 7)
      try metrics.publish()
      run.host.set(0, 140)
      run.host.set(1, 5)
      try metrics.publish()
      let packets = try factory.expectCounter("martlet_rx_packets", [("queue", "0")])
      #expect(packets.values == [100, 40])
      let segments = try factory.expectGauge(
        "martlet_rx_segments", [("queue", "0"), ("owner", "host")])
      #expect(segments.values == [7, 5])
      _ = try factory.expectCounter(
        "martlet_rx_dropped", [("queue", "0"), ("reason", "ring_full")])
      let time = try factory.expectGauge(
        "martlet_time_p99_nanoseconds", [("direction", "rx"), ("queue", "0"), ("room", "driver")])
      #expect(time.lastValue.map { $0 >= 5000 && $0 < 5100 } == true)
      // A counter that is no more.
      run.host.name(2, "")
      try metrics.publish()
      #expect(!factory.counters.contains { $0.label == "martlet_rx_dropped" })
      // Another run begins with 3.
      run.host.set(0, 3)
      try metrics.publish()
      #expect(packets.values.last == 3)
    }
  }
}
