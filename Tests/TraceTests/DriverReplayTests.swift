import Driver
import E1000e
import E1000eDevice
import Testing
import VirtioNet
import VirtioNetDevice

@testable import Trace

/// A trace becomes a test of any driver, by one call.
@Suite struct DriverReplayTests {
  /// The number of the first line that begins so, and the line.
  func line(_ text: String, _ start: String) throws -> (number: Int, text: String) {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    let index = try #require(lines.firstIndex { $0.hasPrefix(start) })
    return (index + 1, String(lines[index]))
  }

  func divergence<D: NetworkDriver & ~Copyable>(
    _ driver: D.Type, _ text: String
  ) throws -> ReplayedFunction.Divergence {
    do throws(ReplayError) {
      try DriverReplay<D>.run(try! Trace(text: text))
    } catch {
      guard case .divergence(let divergence) = error else { throw error }
      return divergence
    }
    throw Unexpected()
  }
  struct Unexpected: Error {}

  func checkReplay<R: RecordedDriver>(_ recorded: R.Type) throws {
    let trace = try Trace(text: try RecordedRun<R>().text)
    #expect(trace.driver == R.Driver.name)
    let calls = trace.labels.filter { TracedCall($0) != nil }.count
    // Seven verbs in each round, and what precedes and follows them.
    #expect(calls > 7 * RecordedRun<R>.rounds)
    #expect(trace.labels.contains { $0.hasPrefix("0 completed 7") })
    #expect(trace.labels.contains { $0.hasPrefix("changed: ") && $0.contains("link down") })
    #expect(
      trace.lines.contains { $0.entry == .exchange(.interrupt(vector: 1), .none, repeats: 1) })
    #expect(try DriverReplay<R.Driver>.run(trace) == calls)
  }

  @Test func aRunOfVirtioNetIsReplayed() throws { try checkReplay(RecordedVirtioNet.self) }
  @Test func aRunOfE1000eIsReplayed() throws { try checkReplay(RecordedE1000e.self) }

  /// Errors that a driver threw are thrown again.
  @Test(arguments: VirtioNetDevice.malformations)
  func whatAFaultyVirtioDeviceDidIsReplayed(malformation: String) throws {
    let text = try RecordedRun<RecordedVirtioNet>(malformation: malformation).text
    try DriverReplay<VirtioNet>.run(Trace(text: text))
  }
  @Test(arguments: E1000eDevice.malformations)
  func whatAFaultyE1000eDidIsReplayed(malformation: String) throws {
    let text = try RecordedRun<RecordedE1000e>(malformation: malformation).text
    try DriverReplay<E1000e>.run(Trace(text: text))
  }

  /// Recorded in the lab by `martlet run --record`, under the kernel's VFIO.
  @Test func aRunOnQEMUsE1000eIsReplayed() throws {
    try DriverReplay<E1000e>.run(Trace(text: fixture("e1000e-qemu.trace")))
  }

  @Test func anotherRingSizeIsADivergence() throws {
    let virtio = try RecordedRun<RecordedVirtioNet>().text
    let size = try line(virtio, "w2 4 0x0018 0x0040")
    #expect(
      try divergence(Altered<VirtioNet, OtherRingSize>.self, virtio)
        == .init(line: size.number, expected: size.text, got: "w2 4 0x0018 0x0020"))
    // Bytes of the first ring: 16 for each descriptor.
    let e1000e = try RecordedRun<RecordedE1000e>().text
    let bytes = try line(e1000e, "w4 0 0x2808 0x00000400")
    #expect(
      try divergence(Altered<E1000e, OtherRingSize>.self, e1000e)
        == .init(line: bytes.number, expected: bytes.text, got: "w4 0 0x2808 0x00000200"))
  }

  /// Nothing of it shows in registers: only in what is handed out.
  @Test func buffersInAnotherOrderAreADivergence() throws {
    let virtio = try RecordedRun<RecordedVirtioNet>().text
    let received = try line(virtio, "mark 0 received")
    let first = try divergence(Altered<VirtioNet, OtherOrder>.self, virtio)
    #expect(first.line == received.number && first.expected == received.text)
    let e1000e = try RecordedRun<RecordedE1000e>().text
    let filled = try line(e1000e, "mark 0 received 0:0:60")
    #expect(
      try divergence(Altered<E1000e, OtherOrder>.self, e1000e)
        == .init(line: filled.number, expected: filled.text, got: "mark 0 received 62:0:60"))
  }

  @Test func anotherLengthIsADivergence() throws {
    let text = try RecordedRun<RecordedE1000e>().text
    let received = try line(text, "mark 0 received 0:0:60")
    let changed = text.replacing(
      "mark 0 received 0:0:60", with: "mark 0 received 0:0:61", maxReplacements: 1)
    #expect(
      try divergence(E1000e.self, changed)
        == .init(line: received.number, expected: "mark 0 received 0:0:61", got: received.text))
  }

  @Test func anotherDriverAndNoDriverAreToldApart() throws {
    let text = try RecordedRun<RecordedE1000e>().text
    let made = try line(text, "mark init")
    #expect(made.text == "mark init e1000e 1 64 - ++ yes")
    #expect(try divergence(VirtioNet.self, text).got == "mark init virtio-net 1 64 - ++ yes")
    let none = try Trace(
      text: "martlet-trace 1\nmap 0x1000 0x1000 rings\nmap 0x4000 0x1000 arena\n")
    #expect(none.driver == nil)
    #expect(throws: ReplayError.trace(.noDriver)) { try DriverReplay<E1000e>.run(none) }
  }

  /// What no host may do is no call: a trace by hand cannot lead a driver out of its memory.
  @Test(arguments: [
    "mark 0 receive 64", "mark start", "mark init e1000e 2 64 - - no",
    "mark init e1000e 1 63 - - no",
  ]) func impossibleCallsAreRefused(call: String) throws {
    let trace = try Trace(
      text: "martlet-trace 1\nmap 0x1000 0x1000 rings\nmap 0x4000 0x1000 arena\n\(call)\n")
    #expect(throws: ReplayError.trace(.malformed(line: 4, text: String(call.dropFirst(5))))) {
      try DriverReplay<E1000e>.run(trace)
    }
  }

  @Test func slotsOutsideTheArenaAreRefused() throws {
    let text = try RecordedRun<RecordedE1000e>().text
    let sent = try line(text, "mark 0 transmit")
    let outside = text.replacing(
      sent.text, with: "mark 0 transmit 4000000000:0:64", maxReplacements: 1)
    #expect(
      throws: ReplayError.trace(
        .malformed(line: sent.number, text: "0 transmit 4000000000:0:64"))
    ) {
      try DriverReplay<E1000e>.run(Trace(text: outside))
    }
  }

  static let calls = [
    "init e1000e 1 256 - ++ yes", "init virtio-net 2 64 9000 -+- no", "start", "stop",
    "configuration", "statistics", "promiscuous on", "promiscuous off", "filter /", "filter / all",
    "filter 02:00:00:00:00:01 / 01:00:5e:00:00:01 01:00:5e:00:00:02", "coalescing 8 100",
    "0 take", "0 postReceive 12:0:2048 13:64:1984", "1 receive 128", "0 transmit",
    "0 transmit 16384:4294967295:1:3:65535 7:0:64", "0 completeTransmit 64", "0 arm yes",
    "0 arm no", "15 disarm", "0 takeBack 64 64",
  ]

  @Test(arguments: calls) func callsAreReadAndWrittenAlike(label: String) throws {
    #expect(try #require(TracedCall(label)).description == label)
  }

  @Test(arguments: [
    "", "init", "init e1000e 1 256 - ++", "init e1000e 1 256 x + yes", "0", "0 received 1:0:64",
    "0 receive", "0 arm", "0 postReceive 1:2", "0 transmit 1:0:64:65536:0", "promiscuous",
    "filter", "filter 1 / 2", "filter all / all", "start now", "received",
  ]) func otherLabelsAreNoCalls(label: String) {
    #expect(TracedCall(label) == nil)
  }
}
