import Foundation

// Run by Setup/docs.sh in the repository's root: swift DocumentationCheck.swift SYMBOL-GRAPH-FOLDER.
// Three things that DocC does not see: a public symbol without documentation, an excerpt in a guide that is no longer in
// the sources, and a file that a guide names and that is not there.

var complaints: [String] = []

func files(below folder: String, _ suffix: String) -> [String] {
  (FileManager.default.enumerator(atPath: folder)?.allObjects as? [String] ?? [])
    .filter { $0.hasSuffix(suffix) }.map { "\(folder)/\($0)" }.sorted()
}

func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }

// MARK: Public symbols

struct SymbolGraph: Decodable {
  struct Symbol: Decodable {
    struct Identifier: Decodable { var precise: String }
    struct Comment: Decodable {}
    var identifier: Identifier
    var pathComponents: [String]
    var docComment: Comment?
  }
  struct Module: Decodable { var name: String }
  var module: Module
  var symbols: [Symbol]
}

for path in files(below: CommandLine.arguments[1], ".symbols.json") {
  let graph = try JSONDecoder().decode(
    SymbolGraph.self, from: Data(contentsOf: URL(filePath: path)))
  for symbol in graph.symbols where symbol.docComment == nil {
    // What the compiler has made, such as `!=`, is documented where it comes from.
    if symbol.identifier.precise.contains("::SYNTHESIZED::") { continue }
    let name = symbol.pathComponents.joined(separator: ".")
    complaints.append("\(graph.module.name): \(name) has no documentation")
  }
}

/// The driver that a reader of the guide makes: its files are not there.
let madeByReader = "Sparrow"

// MARK: Excerpts

/// Lines as they count: without indentation, and without those that are empty.
func significantLines(_ text: some StringProtocol) -> [String] {
  text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
    .filter { !$0.isEmpty }
}

func contains(_ lines: [String], _ excerpt: [String]) -> Bool {
  guard excerpt.count <= lines.count else { return false }
  return (0...lines.count - excerpt.count).contains { start in
    lines[start] == excerpt[0] && Array(lines[start..<start + excerpt.count]) == excerpt
  }
}

let folders = ["Sources", "Drivers", "Stages", "Hardware", "Tests"]
let sources = folders.flatMap { files(below: $0, ".swift") }.map { significantLines(text($0)) }
let guides = folders.flatMap { files(below: $0, ".md") }.filter { $0.contains(".docc/") }
if guides.isEmpty { complaints.append("there is no guide") }

for guide in guides {
  let page = text(guide)
  var excerpt: (line: Int, lines: [String])?
  var number = 0
  for line in page.split(separator: "\n", omittingEmptySubsequences: false) {
    number += 1
    if let (start, lines) = excerpt {
      if line != "```" {
        excerpt?.lines.append(String(line))
        continue
      }
      let wanted = significantLines(lines.joined(separator: "\n"))
      if wanted.isEmpty || !sources.contains(where: { contains($0, wanted) }) {
        complaints.append("\(guide):\(start): no source has these lines as they stand here")
      }
      excerpt = nil
    } else if line == "```swift" {
      excerpt = (number, [])
    }
  }
  if let excerpt { complaints.append("\(guide):\(excerpt.line): this excerpt has no end") }

  // MARK: Files that are named
  for match in page.matches(of: #/`((?:Sources|Drivers|Stages|Hardware|Tests|Setup)/[^`{} ]+)`/#) {
    let path = String(match.1)
    if !FileManager.default.fileExists(atPath: path) && !path.contains(madeByReader) {
      complaints.append("\(guide): there is no \(path)")
    }
  }
}

for complaint in complaints { print("documentation: \(complaint)") }
exit(complaints.isEmpty ? 0 : 1)
