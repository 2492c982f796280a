/// The counts that are kept in the repository, as text: a line for each loop, then its functions, indented.
public struct InstructionTable: Sendable {
  public var counts: [InstructionCount]

  public init(_ counts: [InstructionCount]) { self.counts = counts }

  /// - Throws: ``BadTable`` for a line that is none.
  public init(text: String) throws {
    counts = []
    for line in text.split(separator: "\n") where !line.hasPrefix("#") {
      let parts = line.split(separator: " ", maxSplits: 1)
      guard parts.count == 2, let cost = Double(parts[0]) else {
        throw BadTable(line: String(line))
      }
      let name = String(parts[1])
      if line.hasPrefix(" ") {
        guard !counts.isEmpty else { throw BadTable(line: String(line)) }
        counts[counts.count - 1].functions.append(.init(name: name, perPacket: cost))
      } else {
        counts.append(InstructionCount(loop: name, perPacket: cost, functions: []))
      }
    }
  }

  public struct BadTable: Error, CustomStringConvertible {
    var line: String
    public var description: String { "the table of instructions has a line that is none: \(line)" }
  }

  public var text: String {
    var lines = [
      "# Instructions a packet (pool: a segment) of each loop of Benchmarks/Loops, and of its functions by themselves.",
      "# Written by `martlet bench instructions --update`; a rise of more than 5 % fails Tests/System/instructions.sh.",
    ]
    for count in counts {
      lines.append("\(decimal(count.perPacket, 1)) \(count.loop)")
      lines += count.functions.map { "  \(decimal($0.perPacket, 1)) \($0.name)" }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// What is wrong with new counts beside these: a line for each loop that costs over 5 % more, with the functions that
  /// grew. A loop that is not kept here is wrong too.
  public func complaints(about new: [InstructionCount]) -> [String] {
    new.flatMap { count -> [String] in
      guard let kept = counts.first(where: { $0.loop == count.loop }) else {
        return ["\(count.loop) is not in the table: `martlet bench instructions --update`"]
      }
      if count.perPacket <= kept.perPacket * 1.05 { return [] }
      let text =
        "\(count.loop): \(decimal(count.perPacket, 1)) instructions a packet, \(decimal(kept.perPacket, 1)) are kept"
      return [text] + Self.growth(from: kept, to: count)
    }
  }

  private static func growth(from old: InstructionCount, to new: InstructionCount) -> [String] {
    let before = Dictionary(
      old.functions.map { ($0.name, $0.perPacket) }, uniquingKeysWith: { $0 + $1 })
    let grown = new.functions.map {
      (name: $0.name, by: $0.perPacket - before[$0.name, default: 0])
    }
    return grown.filter { $0.by >= 0.5 }.sorted { $0.by > $1.by }.prefix(5).map {
      "  +\(decimal($0.by, 1)) in \($0.name)"
    }
  }
}
