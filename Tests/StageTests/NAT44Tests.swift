import Channel
import Memory
import NAT44
import Stage
import Testing

@Suite struct NAT44Tests {
  static let configuration = """
    outside=198.51.100.1 inside=10.0.0.0/24 ports=40000-40003
    forward=tcp:8080:10.0.0.5:80 udp-timeout=30
    """
  static let outside: [UInt8] = [198, 51, 100, 1]
  static let remote: [UInt8] = [203, 0, 113, 9]

  private func sent(
    _ bench: inout StageBench<NAT44>, _ frame: Frame, at time: UInt64 = 0
  ) -> [UInt8]? {
    let out = bench.send(BenchPacket(frame.bytes, .transmit, at: time))
    #expect(out.allSatisfy { Plain.problems($0.bytes) == "" && $0.way == .transmit })
    return out.first?.bytes
  }

  private func received(
    _ bench: inout StageBench<NAT44>, _ frame: Frame, at time: UInt64 = 0
  ) -> [UInt8]? {
    let out = bench.send(BenchPacket(frame.bytes, .receive, at: time))
    #expect(out.allSatisfy { Plain.problems($0.bytes) == "" && $0.way == .receive })
    return out.first?.bytes
  }

  private func port(_ frame: [UInt8]) -> UInt16 {
    Plain.number(frame, frame[23] == 1 ? 38 : 34)
  }

  @Test(arguments: [6, 17, 1] as [UInt8])
  func aFlowFindsBack(transport: UInt8) throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    for payload in [0, 1, 33, 1400] {
      let request = Frame(
        transport: transport, payload: [UInt8](repeating: 0xa5, count: payload))
      let out = try #require(sent(&bench, request))
      let port = port(out)
      #expect((40000...40003).contains(port))
      var translated = request
      translated.source = Self.outside
      translated.sourcePort = port
      #expect(out == translated.bytes)
      var answer = translated
      (answer.source, answer.destination) = (Self.remote, Self.outside)
      if transport == 1 {
        answer.messageType = 0
      } else {
        (answer.sourcePort, answer.destinationPort) = (request.destinationPort, port)
      }
      let back = try #require(received(&bench, answer))
      var expected = answer
      expected.destination = request.source
      if transport == 1 {
        expected.sourcePort = request.sourcePort
      } else {
        expected.destinationPort = request.sourcePort
      }
      #expect(back == expected.bytes)
      // Nobody else has been asked.
      answer.source[3] = 10
      #expect(received(&bench, answer) == nil)
    }
    expect(bench["flows"] == 1 && bench["flows_made"] == 1 && bench["unknown"] == 4)
    expect(bench["translated_out"] == 4 && bench["translated_in"] == 4)
  }

  @Test func partialSumsAndMissingOnesStay() throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    let metadata = Offload(
      segmentation: .tcp4, needsChecksum: true, segmentSize: 536, checksumStart: 34,
      checksumOffset: 16)
    let frame = Frame(transport: 6, payload: Array(0..<200), isPartial: true)
    let out = bench.send(BenchPacket(frame.bytes, .transmit, metadata: metadata))[0]
    var translated = frame
    (translated.source, translated.sourcePort) = (Self.outside, port(out.bytes))
    #expect(out.bytes == translated.bytes && out.metadata == metadata)
    let without = try #require(sent(&bench, Frame(hasNoChecksum: true)))
    #expect(Plain.number(without, 40) == 0)
  }

  @Test func portsAndFlowsAreBounded() throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    var ports: Set<UInt16> = []
    for port in 1...6 as ClosedRange<UInt16> {
      if let out = sent(&bench, Frame(sourcePort: port)) { ports.insert(self.port(out)) }
    }
    #expect(ports == [40000, 40001, 40002, 40003])
    expect(bench["dropped_full"] == 2)
    // Another protocol has ports of its own; its own port where it is free.
    let own = try #require(sent(&bench, Frame(transport: 6, sourcePort: 40002)))
    #expect(port(own) == 40002)
    // Half a minute later they are free again.
    #expect(sent(&bench, Frame(sourcePort: 7), at: 29_000_000_000) == nil)
    #expect(sent(&bench, Frame(sourcePort: 7), at: 30_000_000_000) != nil || bench["flows"] > 0)
    #expect(sent(&bench, Frame(sourcePort: 8), at: 32_000_000_000) != nil)
    var small = try StageBench<NAT44>(
      "outside=198.51.100.1 inside=10.0.0.0/24 flows=1")
    #expect(sent(&small, Frame(sourcePort: 1)) != nil)
    #expect(sent(&small, Frame(transport: 6, sourcePort: 1)) == nil)
    expect(small["dropped_full"] == 1)
  }

  @Test func connectionsThatEndAreForgottenSooner() throws {
    let second: UInt64 = 1_000_000_000
    func lives(_ flags: [(StagedPacket.Way, UInt8)], at time: UInt64) throws -> Bool {
      var bench = try StageBench<NAT44>(Self.configuration)
      var outsidePort: UInt16 = 0
      for (way, flags) in flags {
        if way == .transmit {
          outsidePort = port(try #require(sent(&bench, Frame(transport: 6, flags: flags))))
        } else {
          let answer = Frame(
            transport: 6, source: Self.remote, destination: Self.outside, sourcePort: 53,
            destinationPort: outsidePort, flags: flags)
          #expect(received(&bench, answer) != nil)
        }
      }
      _ = bench.advance(to: time * second)
      return bench["flows"] == 1
    }
    #expect(try lives([(.transmit, 2)], at: 239))
    #expect(try !lives([(.transmit, 2)], at: 242))
    #expect(try lives([(.transmit, 2), (.receive, 0x12)], at: 7439))
    #expect(try !lives([(.transmit, 2), (.receive, 0x12)], at: 7442))
    #expect(try !lives([(.transmit, 2), (.receive, 0x14)], at: 242))
    #expect(try lives([(.transmit, 2), (.receive, 0x12), (.transmit, 0x11)], at: 242))
    #expect(
      try !lives([(.transmit, 2), (.receive, 0x12), (.transmit, 0x11), (.receive, 0x11)], at: 242))
  }

  @Test func forwardsAreThereFromTheStart() throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    let request = Frame(
      transport: 6, source: Self.remote, destination: Self.outside, sourcePort: 6000,
      destinationPort: 8080, payload: [1, 2, 3], flags: 2)
    let back = try #require(received(&bench, request))
    #expect(Array(back[30..<34]) == [10, 0, 0, 5] && Plain.number(back, 36) == 80)
    let answer = Frame(transport: 6, sourcePort: 80, destinationPort: 6000, flags: 0x12)
    let out = try #require(sent(&bench, answer))
    #expect(Array(out[26..<30]) == Self.outside && Plain.number(out, 34) == 8080)
    expect(bench["flows"] == 0)
  }

  // MARK: ICMP errors

  /// An error about a packet, with its first bytes inside.
  private func error(
    about frame: [UInt8], bytes: Int, from source: [UInt8], to destination: [UInt8]
  ) -> Frame {
    Frame(
      transport: 1, source: source, destination: destination, sourcePort: 0,
      payload: Array(frame[14...].prefix(bytes)), messageType: 3)
  }

  @Test(arguments: [6, 17, 1] as [UInt8], [28, 36, 41, 200])
  func errorsFindBackWithThePacketInThem(transport: UInt8, bytes: Int) throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    let request = Frame(transport: transport, payload: Array(0..<61))
    let out = try #require(sent(&bench, request))
    let error = error(about: out, bytes: bytes, from: [192, 0, 2, 1], to: Self.outside)
    let back = try #require(received(&bench, error))
    #expect(Array(back[30..<34]) == request.source)
    // What is in it is what was sent, byte by byte, checksums included.
    #expect(Array(back[42...]) == Array(request.bytes[14...].prefix(bytes)))
  }

  @Test func errorsFromInsideGoOutWithTheOutsideAddress() throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    let out = try #require(sent(&bench, Frame(payload: [1, 2, 3])))
    let answer = Frame(
      source: Self.remote, destination: Self.outside, sourcePort: 53,
      destinationPort: port(out), payload: Array(0..<33))
    let back = try #require(received(&bench, answer))
    let error = error(about: back, bytes: 61, from: [10, 0, 0, 5], to: Self.remote)
    let told = try #require(sent(&bench, error))
    #expect(Array(told[26..<30]) == Self.outside)
    #expect(Array(told[42...]) == Array(answer.bytes[14...].prefix(61)))
  }

  @Test func errorsThatAreCutOffOrOfNobodyAreDropped() throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    let out = try #require(sent(&bench, Frame(transport: 6)))
    for bytes in 0..<28 {
      let error = error(about: out, bytes: bytes, from: Self.remote, to: Self.outside)
      #expect(received(&bench, error) == nil)
    }
    // Another port, another remote, a fragment, an inner header that lies about its length.
    for (offset, byte) in [(35, 1), (33, 8), (21, 1), (14, 0x4f), (14, 0x44), (14, 0x65)] {
      var changed = out
      changed[offset] ^= 0xff
      changed[offset] = UInt8(byte)
      let error = error(about: changed, bytes: 40, from: Self.remote, to: Self.outside)
      #expect(received(&bench, error) == nil)
    }
    expect(bench["unknown"] == 34)
  }

  /// What lies behind the length that the IP header says is padding, whatever it looks like.
  @Test func whatIsPaddingIsNotTranslated() throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    let out = try #require(sent(&bench, Frame(transport: 6)))
    let whole = error(about: out, bytes: 40, from: Self.remote, to: Self.outside)
    let inner = Array(whole.bytes.suffix(40))
    for count in [0, 27] {
      let short = error(about: out, bytes: count, from: Self.remote, to: Self.outside).bytes
      let padded = bench.send(BenchPacket(short + inner.suffix(40 - count), .receive))
      #expect(padded.isEmpty)
    }
    // Of what is there the checksum is brought along, of what is padding nothing is written.
    let short = error(about: out, bytes: 36, from: Self.remote, to: Self.outside).bytes
    let back = bench.send(BenchPacket(short + inner.suffix(4), .receive))
    #expect(back.map { Plain.problems($0.bytes) } == [""])
    #expect(back.map { Array($0.bytes.suffix(4)) } == [Array(inner.suffix(4))])
  }

  // MARK: Fragments and what is not translated

  @Test func fragmentsFollowTheFirst() throws {
    var bench = try StageBench<NAT44>(Self.configuration)
    let out = try #require(sent(&bench, Frame()))
    var first = Frame(
      source: Self.remote, destination: Self.outside, sourcePort: 53,
      destinationPort: port(out), payload: Array(0..<16), fragment: 0x2000)
    // Its checksum covers what follows: it is not looked at here.
    first.hasNoChecksum = true
    let later = Frame(
      source: Self.remote, destination: Self.outside, payload: Array(0..<16), fragment: 3)
    #expect(received(&bench, later) == nil)
    #expect(received(&bench, first).map { Array($0[30..<34]) } == [10, 0, 0, 5])
    let back = try #require(received(&bench, later))
    #expect(Array(back[30..<34]) == [10, 0, 0, 5] && Array(back[34...]) == later.payload)
    #expect(received(&bench, later, at: 60_000_000_001) == nil)
    let leaving = try #require(sent(&bench, Frame(payload: [1, 2, 3], fragment: 3)))
    #expect(Array(leaving[26..<30]) == Self.outside)
  }

  @Test func whatIsNoFlowIsLeftOrDropped() throws {
    for (setting, passes) in [("", false), (" unknown=pass", true)] {
      var bench = try StageBench<NAT44>(Self.configuration + setting)
      let unknown = Frame(
        source: Self.remote, destination: Self.outside, destinationPort: 40000)
      #expect(received(&bench, unknown) == (passes ? unknown.bytes : nil))
    }
    var bench = try StageBench<NAT44>(Self.configuration)
    // Local, multicast, IPv6, from elsewhere, to elsewhere.
    for frame in [
      Frame(destination: [10, 0, 0, 9]), Frame(destination: [224, 0, 0, 251]),
      Frame(destination: [255, 255, 255, 255]), Frame(source: [172, 16, 0, 1]),
      Frame(isIPv6: true, source: Frame.ipv6(1), destination: Frame.ipv6(2)),
    ] { #expect(sent(&bench, frame) == frame.bytes) }
    let elsewhere = Frame(source: Self.remote, destination: [192, 0, 2, 7])
    #expect(received(&bench, elsewhere) == elsewhere.bytes)
    #expect(sent(&bench, Frame(transport: 47, payload: [1, 2, 3, 4])) == nil)
    #expect(sent(&bench, Frame(destination: Self.outside)) == nil)
    expect(bench["unsupported"] == 1 && bench["hairpin"] == 1)
    let whole = Frame(transport: 6, options: [1, 1, 1, 1], tags: [5, 6]).bytes
    for count in 22..<66 {
      #expect(bench.send(BenchPacket(Array(whole[..<count]), .transmit)).isEmpty)
    }
    expect(bench["malformed"] == 44)
    // Tags and options are in nobody's way.
    let out = bench.send(BenchPacket(whole, .transmit))
    #expect(Plain.problems(try #require(out.first).bytes, at: 22) == "")
    #expect(Array(out[0].bytes[34..<38]) == Self.outside)
  }

  @Test(arguments: [
    ("", "outside is missing"), ("outside=198.51.100.1", "inside is missing"),
    ("outside=198.51.100.1 inside=10.0.0.1/24", "write inside=10.0.0.0/24"),
    ("outside=10.0.0.1 inside=10.0.0.0/24", "the outside address is in it"),
    ("outside=1.2.3.4 inside=10.0.0.0/24\nports=5-1", "line 2"),
    ("outside=1.2.3.4 inside=10.0.0.0/24 forward=tcp:40000:10.0.0.5:80", "one of ports="),
    ("outside=1.2.3.4 inside=10.0.0.0/24 forward=tcp:80:10.0.1.5:80", "is not inside"),
    ("outside=1.2.3.4 inside=10.0.0.0/24 forward=icmp:80:10.0.0.5:80", "no protocol with ports"),
    ("outside=::1 inside=10.0.0.0/24", "no address of an interface"),
  ])
  func wrongConfigurationsSayWhatIsWrong(text: String, part: String) {
    let error = #expect(throws: StageError.self) { _ = try StageBench<NAT44>(text) }
    #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
  }
}
