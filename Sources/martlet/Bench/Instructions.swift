import ArgumentParser
import Benchmarks
import Loops

/// `martlet bench instructions`.
struct Instructions: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Instructions a packet of the data path, exact, beside those of the C control.",
    discussion: """
      Runs each loop of Benchmarks/Loops under callgrind, on a device that is only memory. Fails where a loop costs over \
      5 % more than the table in the repository says, with the functions that grew; --update writes that table.
      """)

  @Option(help: "Loops whose name begins so.") var only = ""
  @Option(help: "The table that is compared or written.")
  var table = "Benchmarks/instructions.txt"
  @Flag(help: "Write the table instead of comparing.") var update = false

  func run() throws {
    try reporting {
      do {
        try measure()
      } catch let failure as CommandFailure {
        throw failure
      } catch {
        throw CommandFailure.failed(error)
      }
    }
  }

  private func measure() throws {
    let counter = try InstructionCounter()
    var counts: [InstructionCount] = []
    for loop in PathLoopName.allCases where loop.rawValue.hasPrefix(only) {
      guard let count = try counter.count(loop) else { continue }
      counts.append(count)
    }
    guard !counts.isEmpty else {
      throw CommandFailure(code: 64, text: "no loop's name begins with \(only)")
    }
    writeLine(describe(counts), to: 1)
    if update {
      try writeText(InstructionTable(counts).text, to: table)
      writeLine("table: \(table)", to: 1)
      return
    }
    let complaints = try InstructionTable(text: try readText(table)).complaints(about: counts)
    for complaint in complaints { writeLine(complaint, to: 1) }
    if !complaints.isEmpty {
      throw CommandFailure(code: 1, text: "more instructions a packet than \(table) allows")
    }
  }

  private func describe(_ counts: [InstructionCount]) -> String {
    var table = TextTable(columns: ["instructions a packet", "", "ours", "C", "C / ours"])
    for count in counts {
      guard let loop = PathLoopName(rawValue: count.loop), !loop.isControl else { continue }
      let control = counts.first { $0.loop == loop.control?.rawValue }
      table.add([
        count.loop, "", decimal(count.perPacket, 1),
        control.map { decimal($0.perPacket, 1) } ?? "-",
        control.map { decimal($0.perPacket / count.perPacket, 2) } ?? "-",
      ])
    }
    return table.text
  }
}
