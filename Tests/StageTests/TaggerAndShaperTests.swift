import Channel
import Memory
import Shaper
import Stage
import Testing
import VLANTagger

@Suite struct VLANTaggerTests {
  @Test func whatIsSentIsTaggedAndWhatIsReceivedIsNot() throws {
    var bench = try StageBench<VLANTagger>("vlan=42 priority=3  # the office")
    let metadata = Offload(needsChecksum: true, checksumStart: 34, checksumOffset: 16)
    let plain = Frame(transport: 6, payload: [1, 2, 3], isPartial: true)
    var tagged = plain
    tagged.tags = [0x602a]
    let sent = bench.send(BenchPacket(plain.bytes, .transmit, metadata: metadata))
    #expect(sent.map(\.bytes) == [tagged.bytes] && sent[0].metadata.checksumStart == 38)
    let received = bench.send(BenchPacket(tagged.bytes, .receive, metadata: sent[0].metadata))
    #expect(received.map(\.bytes) == [plain.bytes] && received[0].metadata == metadata)
    // An instance's own tag is inside.
    var double = tagged
    double.tags = [0x602a, 7]
    var inner = tagged
    inner.tags = [7]
    expect(bench.send(BenchPacket(inner.bytes, .transmit)).map(\.bytes) == [double.bytes])
    #expect(bench["tagged"] == 2 && bench["untagged"] == 1)
  }

  @Test func whatIsOfNoOrAnotherVLANIsDropped() throws {
    for (others, passes) in [("", false), (" others=drop", false), (" others=pass", true)] {
      var bench = try StageBench<VLANTagger>("vlan=42\(others)")
      for tags in [[], [43], [0], [0x6000], [7, 42]] as [[UInt16]] {
        let frame = Frame(tags: tags).bytes
        let out = bench.send(BenchPacket(frame, .receive))
        #expect(out.map(\.bytes) == (passes ? [frame] : []), "\(tags)")
      }
      if passes { continue }
      #expect(bench["without_tag"] == 3 && bench["of_other_vlans"] == 2)
    }
  }

  @Test func shortFramesAreCounted() throws {
    var bench = try StageBench<VLANTagger>("vlan=42", room: 0)
    let tagged = Frame(tags: [42]).bytes
    for count in 0..<18 {
      expect(bench.send(BenchPacket(Array(tagged[..<count]), .receive)).isEmpty)
    }
    for count in 0..<14 {
      expect(bench.send(BenchPacket(Array(tagged[..<count]), .transmit)).isEmpty)
    }
    #expect(bench["malformed"] == 32)
    expect(bench.send(BenchPacket([UInt8](repeating: 1, count: 2048), .transmit)).isEmpty)
    #expect(bench["without_room"] == 1)
  }

  @Test(arguments: [
    ("", "vlan is missing"), ("vlan=0", "1 to 4094"), ("vlan=42\nvlan=43", "line 2"),
    ("vlan=42\n\npriority=8", "line 3"), ("vlan=42 tag=1", "no such setting"),
    ("vlan", "KEY=VALUE"), ("vlan=42 others=keep", "drop or pass"),
  ])
  func wrongConfigurationsSayWhatIsWrong(text: String, part: String) {
    let error = #expect(throws: StageError.self) { _ = try StageBench<VLANTagger>(text) }
    #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
  }
}

@Suite struct ShaperTests {
  /// Twice the rate for ten seconds: half of it goes, exactly.
  @Test(arguments: [
    ("rate=10Mbit/s burst=16KB queue=100", 10e6, 1500), ("rate=10Mbit/s burst=1KB", 10e6, 1500),
    ("rate=100kbit/s burst=3KB queue=5", 100e3, 64), ("rate=1Gbit/s", 1e9, 1514),
    ("rate=3333bit/s burst=64B", 3333, 60),
  ])
  func theRateIsRight(configuration: String, rate: Double, byteCount: Int) throws {
    var bench = try StageBench<Shaper>(configuration)
    let frame = [UInt8](repeating: 3, count: byteCount)
    let interval = Double(byteCount) * 8 / (2 * rate) * 1e9
    let duration = rate < 1e6 ? 200e9 : rate > 1e8 ? 1e9 : 10e9
    var out: [BenchPacket] = []
    for number in 0..<Int(duration / interval) {
      out += bench.send(BenchPacket(frame, .transmit, at: UInt64(Double(number) * interval)))
    }
    // Once the burst is used up.
    let later = out.filter { Double($0.time) > duration / 2 }
    let measured = Double(later.count * byteCount * 8) / (duration / 2 / 1e9)
    #expect(abs(measured / rate - 1) < 0.01, "\(measured) of \(rate)")
    #expect(bench["dropped_by_queue"] > 0 && bench["delayed"] > 0)
    // In no stretch more than the rate and a burst.
    #expect(zip(out, out.dropFirst()).allSatisfy { $0.time <= $1.time })
  }

  @Test func orderIsKeptAndWhatIsTooMuchIsDropped() throws {
    var bench = try StageBench<Shaper>("rate=8Mbit/s burst=1000B queue=3")
    var out: [BenchPacket] = []
    for number in 0..<6 as Range<UInt8> {
      out += bench.send(BenchPacket([UInt8](repeating: number, count: 1000), .transmit, at: 10))
    }
    #expect(out.map { $0.bytes[0] } == [0] && bench["waiting"] == 3)
    #expect(bench["dropped_by_queue"] == 2)
    // 1000 bytes are a millisecond.
    let rest = bench.advance(to: 10_000_000)
    #expect(rest.map { $0.bytes[0] } == [1, 2, 3])
    #expect(rest.map(\.time) == [1_000_010, 2_000_010, 3_000_010])
    #expect(bench["waiting"] == 0 && bench["holding"] == 0)
  }

  @Test func theOtherWayIsNotShaped() throws {
    var bench = try StageBench<Shaper>("rate=1kbit/s burst=64B queue=1")
    let frame = [UInt8](repeating: 3, count: 1000)
    for _ in 0..<50 { expect(bench.send(BenchPacket(frame, .receive)).count == 1) }
    var both = try StageBench<Shaper>("rate=1kbit/s burst=64B queue=1 way=both")
    var passed = 0
    for way in [StagedPacket.Way.receive, .transmit, .receive, .transmit] {
      passed += both.send(BenchPacket(frame, way)).count
    }
    #expect(passed == 2 && both["waiting"] == 2)
  }

  @Test func tokensAreExact() {
    var bucket = TokenBucket(rate: 3, burst: 1)
    bucket.advance(to: 0)
    expect(bucket.take(1) && !bucket.take(1) && bucket.delay(1) == 2_666_666_667)
    bucket.advance(to: 2_666_666_666)
    expect(!bucket.take(1) && bucket.delay(1) == 1)
    bucket.advance(to: 1)
    bucket.advance(to: 2_666_666_667)
    expect(bucket.take(1))
    // Never more than the burst, however long it waits.
    bucket.advance(to: .max)
    expect(bucket.take(1) && !bucket.take(1))
  }

  @Test(arguments: [
    ("", "rate is missing"), ("rate=10", "no unit"), ("rate=0Mbit/s", "out of range"),
    ("rate=10Mbit/s queue=0", "1 to 768"), ("rate=10Mbit/s way=up", "receive, transmit or both"),
    ("rate=99999999999999Gbit/s", "is no number"), ("rate=10Mbit/s burst=1GB", "is no number"),
  ])
  func wrongConfigurationsSayWhatIsWrong(text: String, part: String) {
    let error = #expect(throws: StageError.self) { _ = try StageBench<Shaper>(text) }
    #expect(error?.description.contains(part) == true, "\(error?.description ?? "")")
  }
}
