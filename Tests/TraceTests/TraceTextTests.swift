import PCI
import Testing

@testable import Trace

struct TraceTextTests {
  /// One line of each kind, as the format's description has them.
  static let lines = [
    "map 0x100000 0x2000 rings",
    "mem 0x100010 00ff0a",
    "cr2 0x0004 0x0103",
    "cr1 0x0034 0x40 x3",
    "cr4 0x0100 ! system 22 access at 256 of configuration space",
    "cw2 0x0004 0x0107",
    "bar 0 0x100000",
    "bar 3 ! no-region 3",
    "r4 0 0x0008 0x80080783",
    "r4 0 0x0098 0x00000005 x1234",
    "r1 4 0x0014 0x0f",
    "w4 0 0x0098 0x00000005",
    "dma 0x101000 01",
    "offers msix 4",
    "offers ! gone 0000:00:03.0",
    "enable msi +",
    "enable msix +-+ ! no-interrupts msix 3",
    "irq 2",
    "unmask",
    "mark receive, second burst",
    "disable msi",
    "reset",
    "reset ! no-reset",
    "reset ! failed the server: no",
  ]

  @Test(arguments: lines) func linesAreReadAndWrittenAlike(line: String) throws {
    let entry = try #require(TraceEntry(line))
    if line.hasSuffix("no") && line.contains("failed") {
      #expect(
        entry
          == .exchange(
            .reset, .failure(.peer("the recorded function", reason: "the server: no")), repeats: 1))
    } else {
      #expect("\(entry)" == line)
    }
  }

  @Test(arguments: [
    "", "r4", "r4 0", "r4 0 0x8", "r3 0 0x8 0x1", "r4 0 0x8 0x1 0x2", "r4 0 8x 1", "w4 0 0x8",
    "cr2 0x4", "cw2 0x4", "bar 0", "offers", "offers msi", "enable msi", "enable msi *",
    "enable pin +", "irq", "mem 0x10", "mem 0x10 0", "mem 0x10 0g", "mem 0x10 00 11", "map 0x10",
    "reset now", "reset ! because", "wait",
  ]) func whatIsNoLineIsRefused(line: String) {
    #expect(TraceEntry(line) == nil)
  }

  @Test func aTraceIsReadWithTheNumbersOfItsLines() throws {
    let trace = try Trace(
      text: "martlet-trace 1\n# by hand\n\nmap 0x10 0x20 rings\nmark one\nreset\nmark two\n")
    #expect(trace.lines.map(\.number) == [4, 5, 6, 7])
    #expect(trace.mappings == [TraceMapping(name: "rings", iova: 0x10, byteCount: 0x20)])
    #expect(trace.labels == ["one", "two"])
    #expect(throws: TraceError.malformed(line: 3, text: "rest")) {
      try Trace(text: "martlet-trace 1\nreset\nrest\n")
    }
    #expect(throws: TraceError.otherFormat(firstLine: "martlet-trace 2")) {
      try Trace(text: "martlet-trace 2\nreset\n")
    }
    #expect(throws: TraceError.otherFormat(firstLine: "")) { try Trace(text: "") }
  }
}
