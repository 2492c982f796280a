/// What callgrind says a program executed: instructions of each function itself, without those that it called.
///
/// The format is that of "Callgrind Format Specification" in valgrind's manual: names are written once and then
/// referred to by a number in brackets; a line after `calls=` is the cost of the call and not the function's own.
struct CallgrindProfile {
  private(set) var instructions: [String: Int] = [:]

  init(_ text: Substring) {
    var names: [Substring: String] = [:]
    var function = ""
    var skipsNext = false
    for line in text.split(separator: "\n") {
      if line.hasPrefix("fn=") || line.hasPrefix("cfn=") {
        let isCallee = line.hasPrefix("c")
        let value = line.dropFirst(isCallee ? 4 : 3)
        let parts = value.split(separator: " ", maxSplits: 1)
        if parts.count == 2 { names[parts[0]] = String(parts[1]) }
        if !isCallee { function = names[parts.first ?? ""] ?? String(value) }
      } else if line.hasPrefix("calls=") {
        skipsNext = true
      } else if let first = line.utf8.first, (48...57).contains(first) || "+-*".utf8.contains(first)
      {
        if !skipsNext, let cost = line.split(separator: " ").last.flatMap({ Int($0) }) {
          instructions[function, default: 0] += cost
        }
        skipsNext = false
      }
    }
  }
}
