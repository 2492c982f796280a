import Channel
import Steering

/// A file of rules that cannot be used: what is wrong with it, and where.
public struct RuleFileError: Error, CustomStringConvertible {
  public var description: String
}

/// Rules in a file: TOML where its name ends in .toml, else the text of ``RuleSet``, a rule a line.
///
/// In TOML each `[[rule]]` and each `[[protocol]]` is one line of that text: `name` is the word behind `rule`, every other
/// key is a word `key=value`. Lists are written with commas, but for `field`, which stands once for each; `drop = true` is
/// the word `drop`.
public struct RuleFile {
  /// As ``RuleSet`` reads it.
  public let text: String
  public let rules: RuleSet

  public init(path: String) throws(RuleFileError) {
    let content: String
    do throws(TextFile.Failure) {
      content = try TextFile.read(path, limit: SharedText.maximumBytes)
    } catch {
      throw RuleFileError(description: "\(path): \(error.reason)")
    }
    guard path.hasSuffix(".toml") else {
      text = content
      do throws(RuleError) {
        rules = try RuleSet(content)
      } catch {
        throw RuleFileError(description: "\(path):\(error)")
      }
      return
    }
    var lines: [RuleLine] = []
    do throws(TOMLFailure) {
      lines = try RuleLine.lines(of: try TOMLTree(content))
    } catch {
      throw RuleFileError(description: "\(path):\(error.line): \(error.reason)")
    }
    text = lines.map(\.text).joined(separator: "\n")
    do throws(RuleError) {
      rules = try RuleSet(text)
    } catch {
      // The error's line is of the text; a person wants that of the file.
      let index = (error.line ?? 0) - 1
      let place = lines.indices.contains(index) ? lines[index].path : []
      let line = TOMLLines(content).find([place])[place] ?? 1
      throw RuleFileError(
        description: "\(path):\(line): \(error.word): \(error.problem); \(error.advice)")
    }
  }
}

/// A table of a TOML file as a line of text, and where it was.
private struct RuleLine {
  var text: String
  var path: TOMLTree.Path

  /// Protocols first: rules need them.
  static func lines(of tree: TOMLTree) throws(TOMLFailure) -> [RuleLine] {
    guard case .table(let root) = tree else { return [] }
    for key in root.keys where key != "rule" && key != "protocol" {
      throw TOMLFailure(line: 1, reason: "there is no [\(key)]: write [[rule]] or [[protocol]]")
    }
    var lines: [RuleLine] = []
    for kind in ["protocol", "rule"] {
      guard let value = root[kind] else { continue }
      guard case .array(let tables) = value else {
        throw TOMLFailure(line: 1, reason: "\(kind) is written [[\(kind)]], once for each")
      }
      for (index, table) in tables.enumerated() {
        lines.append(
          RuleLine(text: try line(kind, table), path: [.key(kind), .index(index)]))
      }
    }
    return lines
  }

  private static func line(_ kind: String, _ tree: TOMLTree) throws(TOMLFailure) -> String {
    guard case .table(var members) = tree, case .string(let name)? = members["name"] else {
      throw TOMLFailure(line: 1, reason: "each [[\(kind)]] needs a name = \"…\"")
    }
    members["name"] = nil
    var words = [kind, try word(name)]
    for (key, value) in members.sorted(by: { $0.key < $1.key }) {
      words += try self.words(key, value)
    }
    return words.joined(separator: " ")
  }

  private static func words(_ key: String, _ value: TOMLTree) throws(TOMLFailure) -> [String] {
    switch value {
    case .boolean(let isSet): return isSet ? [try word(key)] : []
    case .table(let members):
      var all: [String] = []
      for member in members.sorted(by: { $0.key < $1.key }) {
        all += try words("\(key).\(member.key)", member.value)
      }
      return all
    case .array(let elements):
      var values: [String] = []
      for element in elements { values.append(try scalar(key, element)) }
      return key == "field"
        ? values.map { "field=\($0)" } : ["\(key)=\(values.joined(separator: ","))"]
    default: return ["\(try word(key))=\(try scalar(key, value))"]
    }
  }

  private static func scalar(_ key: String, _ value: TOMLTree) throws(TOMLFailure) -> String {
    switch value {
    case .string(let text): return try word(text)
    case .integer(let number): return "\(number)"
    default:
      throw TOMLFailure(line: 1, reason: "\(key) takes a string or a number, not \(value.kind)")
    }
  }

  /// What would be more than one word would say something else.
  private static func word(_ text: String) throws(TOMLFailure) -> String {
    guard !text.isEmpty, !text.contains(where: { $0.isWhitespace || $0 == "#" }) else {
      throw TOMLFailure(line: 1, reason: "\"\(text)\" has to be one word, without blanks")
    }
    return text
  }
}
