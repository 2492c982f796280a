import Channel
import Stage
import Testing

@Suite struct EchoResponderTests {
  @Test func pingsAreAnswered() throws {
    var bench = try StageBench<EchoResponder>("address=10.0.0.5")
    let ping = Frame(transport: 1, source: [203, 0, 113, 9], destination: [10, 0, 0, 5])
    let out = bench.send(BenchPacket(ping.bytes, .receive))
    #expect(out.map(\.way) == [.transmit])
    #expect(Plain.problems(out[0].bytes) == "")
    #expect(Array(out[0].bytes[30..<34]) == ping.source && out[0].bytes[34] == 0)
    #expect(Array(out[0].bytes[..<6]) == Array(ping.bytes[6..<12]))
    // What another stage or instance sends, and what is for others.
    let other = Frame(transport: 1, destination: [10, 0, 0, 6])
    expect(bench.send(BenchPacket(other.bytes, .receive)).map(\.bytes) == [other.bytes])
    expect(bench.send(BenchPacket(ping.bytes, .transmit)).map(\.bytes) == [ping.bytes])
    expect(bench["answered"] == 1)
  }
}
