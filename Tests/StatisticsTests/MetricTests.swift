import Statistics
import Testing

@Suite struct MetricTests {
  private func shown(_ counter: String) -> String? {
    Metric(counter: counter, instanceNames: [3: "web"]).map {
      "\($0.family) \($0.kind) " + $0.labels.map { "\($0.name)=\($0.value)" }.joined(separator: ",")
    }
  }

  @Test func namesByTheGrammarHaveTheirLabels() {
    #expect(shown("rx_q0_packets") == "rx_packets counter queue=0")
    #expect(shown("q12_doorbells") == "doorbells counter queue=12")
    #expect(shown("rx_q1_dropped_ring_full") == "rx_dropped counter queue=1,reason=ring_full")
    #expect(shown("rx_dropped_unclaimed") == "rx_dropped counter reason=unclaimed")
    #expect(shown("rx_i3_bytes") == "instance_rx_bytes counter instance=3,name=web")
    #expect(
      shown("tx_i3_refused_source")
        == "instance_tx_dropped counter instance=3,name=web,reason=refused_source")
    #expect(shown("rx_q0_segments_device") == "rx_segments gauge queue=0,owner=device")
    #expect(shown("host_restarts_hung") == "host_restarts counter reason=hung")
    #expect(shown("instances_closed") == "instances_closed counter ")
    #expect(shown("rule_web_packets") == "rule_packets counter rule=web")
    #expect(shown("rule_q0_i3-A_bytes_limited") == "rule_limited counter rule=q0_i3-A_bytes")
    #expect(shown("capture_2_lost") == "capture_lost counter capture=2")
    #expect(shown("captures") == "captures gauge ")
    #expect(shown("i3_memory_bytes") == "instance_memory_bytes gauge instance=3,name=web")
  }

  @Test func aSumOfOthersIsNotShownBesideThem() { #expect(shown("host_restarts") == nil) }

  @Test func wordsThatOnlyLookLikeAPlaceAreNone() {
    #expect(shown("rx_quiet_packets") == "rx_quiet_packets counter ")
    #expect(shown("rules_changes") == "rules_changes counter ")
    #expect(shown("rule_packets") == "rule_packets counter ")
    #expect(shown("rule_web_other") == "rule_web_other counter ")
    #expect(shown("capture_x_lost") == "capture_x_lost counter ")
    #expect(shown("iommu_faults") == "iommu_faults counter ")
    #expect(shown("q_i_x") == "q_i_x counter ")
    #expect(
      shown("rx_i99999999999999999999_packets") == "rx_i99999999999999999999_packets counter ")
  }
}

@Suite struct PrometheusTextTests {
  @Test func aFamilyLiesTogetherBehindWhatItMeans() {
    var page = PrometheusText(isUp: true)
    page.add([("rx_q0_packets", 7), ("rx_q0_segments_host", 3), ("rx_q1_packets", 8)])
    #expect(
      page.text == """
        # HELP martlet_up Whether the run goes on.
        # TYPE martlet_up gauge
        martlet_up 1
        # HELP martlet_rx_packets_total Packets received.
        # TYPE martlet_rx_packets_total counter
        martlet_rx_packets_total{queue="0"} 7
        martlet_rx_packets_total{queue="1"} 8
        # HELP martlet_rx_segments Receive segments by who has them now.
        # TYPE martlet_rx_segments gauge
        martlet_rx_segments{queue="0",owner="host"} 3

        """)
  }

  @Test func labelsAreEscaped() {
    var page = PrometheusText(isUp: false)
    page.add([("rx_i0_packets", 1)], instanceNames: [0: "a\"b\\c\nd"])
    #expect(page.text.contains(#"{instance="0",name="a\"b\\c\nd"} 1"#))
    #expect(page.text.hasPrefix("# HELP martlet_up"))
    #expect(page.text.contains("\nmartlet_up 0\n"))
  }

  @Test func whatAnInstanceCountsUnderAnothersNameIsLeftOut() {
    var page = PrometheusText(isUp: true)
    page.add([("rx_i0_packets", 5), ("i0_rx_packets", 99)])
    #expect(page.text.contains("martlet_instance_rx_packets_total{instance=\"0\",name=\"\"} 5\n"))
    #expect(!page.text.contains("99"))
  }
}
