import Glibc

/// A policy file that cannot be used: everything that is wrong with it, each with its line.
public struct PolicyError: Error, CustomStringConvertible {
  public struct Problem: Sendable, Equatable {
    public var line: Int
    /// What is wrong, and what to do.
    public var text: String
  }

  public var path: String
  /// By line; none where the file cannot be read.
  public var problems: [Problem]
  var reason = ""

  public var description: String {
    if problems.isEmpty { return "\(path): \(reason)" }
    return problems.map { "\(path):\($0.line): \($0.text)" }.joined(separator: "\n")
  }
}

extension Policy {
  /// Reads a file and checks all of it.
  public init(path: String, user: uid_t = geteuid()) throws(PolicyError) {
    let text = try Self.read(path)
    do throws(PolicyError) {
      try self.init(text: text, user: user)
    } catch {
      throw PolicyError(path: path, problems: error.problems)
    }
    try readConfigurations(besides: path)
  }

  /// - Parameter text: TOML.
  public init(text: String, user: uid_t = geteuid()) throws(PolicyError) {
    let tree: TOMLTree
    do throws(TOMLFailure) {
      tree = try TOMLTree(text)
    } catch {
      throw PolicyError(
        path: "policy", problems: [.init(line: error.line, text: "no valid TOML: \(error.reason)")])
    }
    var reader = PolicyReader()
    self = reader.policy(tree, user: user)
    if reader.problems.isEmpty { return }
    let lines = TOMLLines(text).find(Set(reader.problems.map(\.path)))
    let problems = reader.problems.map {
      PolicyError.Problem(line: lines[$0.path] ?? 1, text: $0.text)
    }
    throw PolicyError(
      path: "policy",
      problems: problems.enumerated().sorted {
        ($0.element.line, $0.offset) < ($1.element.line, $1.offset)
      }.map(\.element))
  }

  /// Reads the files that stages are configured with.
  private mutating func readConfigurations(besides path: String) throws(PolicyError) {
    let folder = path.lastIndex(of: "/").map { path[...$0] } ?? ""
    for index in stages.indices {
      guard let file = stages[index].configurationFile else { continue }
      stages[index].configuration = try Self.read(file.hasPrefix("/") ? file : folder + file)
    }
  }

  private static func read(_ path: String) throws(PolicyError) -> String {
    do throws(TextFile.Failure) {
      return try TextFile.read(path, limit: 1 << 18)
    } catch {
      throw PolicyError(path: path, problems: [], reason: error.reason)
    }
  }
}
