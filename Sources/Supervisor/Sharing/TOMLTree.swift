import TOMLKit

/// A TOML text as values of this language.
indirect enum TOMLTree {
  case table([String: TOMLTree])
  case array([TOMLTree])
  case string(String)
  case integer(Int)
  case boolean(Bool)
  case other(String)

  /// For messages: with its article.
  var kind: String {
    switch self {
    case .table: "a table"
    case .array: "an array"
    case .string: "a string"
    case .integer: "an integer"
    case .boolean: "a boolean"
    case .other(let kind): kind
    }
  }

  /// - Throws: where the text is no TOML (TOML v1.0.0).
  init(_ text: String) throws(TOMLFailure) {
    try TOMLOutline.check(text)
    do {
      let root = try TOMLTable(string: text)
      // What is taken out points into the table.
      self = withExtendedLifetime(root) { Self.tree(root) }
    } catch let error as TOMLParseError {
      throw TOMLFailure(line: error.source.begin.line, reason: error.description)
    } catch {
      throw TOMLFailure(line: 1, reason: "\(error)")
    }
  }

  private static func tree(_ value: any TOMLValueConvertible) -> TOMLTree {
    switch value.type {
    case .table:
      guard let table = value.table else { return .table([:]) }
      var members: [String: TOMLTree] = [:]
      for key in table.keys { members[key] = table[key].map(tree) }
      return .table(members)
    case .array: return .array((value.array ?? []).map { tree($0) })
    case .string: return .string(value.string ?? "")
    case .int: return .integer(value.int ?? 0)
    case .double: return .other("a fraction")
    case .bool: return .boolean(value.bool ?? false)
    case .date, .time, .dateTime: return .other("a date or time")
    }
  }

  /// A way from the root to a value.
  typealias Path = [Step]
  enum Step: Hashable {
    case key(String)
    case index(Int)
  }

  func contains(_ path: some Collection<Step>) -> Bool {
    guard let first = path.first else { return true }
    switch (self, first) {
    case (.table(let members), .key(let key)):
      return members[key]?.contains(path.dropFirst()) ?? false
    case (.array(let elements), .index(let index)):
      return elements.indices.contains(index) && elements[index].contains(path.dropFirst())
    default: return false
    }
  }
}

/// Why a text is no TOML.
struct TOMLFailure: Error {
  var line: Int
  var reason: String
}

/// Finds the lines of a TOML text on which values begin. The parser tells lines of errors only; but a value begins on the
/// line behind the longest valid beginning of the text that lacks it.
struct TOMLLines {
  private let lines: [Substring]

  init(_ text: String) { lines = text.split(separator: "\n", omittingEmptySubsequences: false) }

  /// - Returns: the line of each path, counted from 1; 1 for what is not there.
  func find(_ paths: Set<TOMLTree.Path>) -> [TOMLTree.Path: Int] {
    var found: [TOMLTree.Path: Int] = [:]
    var missing = paths
    var start = 1
    var text = ""
    for (index, line) in lines.enumerated() where !missing.isEmpty {
      text += line + "\n"
      guard let tree = try? TOMLTree(text) else { continue }
      for path in missing where tree.contains(path) {
        found[path] = start
        missing.remove(path)
      }
      start = index + 2
    }
    for path in missing { found[path] = 1 }
    return found
  }
}
