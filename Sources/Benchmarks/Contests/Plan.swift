import Glibc

/// What a run of the benchmarks does, and how long it takes for each sample.
public struct BenchmarkPlan {
  public var rounds: Int
  /// Milliseconds of one sample.
  public var window: Int
  /// Only rows whose names begin so; empty for all.
  public var only: String

  public init(rounds: Int, window: Int, only: String) {
    self.rounds = rounds
    self.window = window
    self.only = only
  }

  /// Whether a row is wanted.
  func wants(_ name: String) -> Bool { name.hasPrefix(only) }
  /// Whether any row of a group is.
  func wants(anyOf group: String) -> Bool { only.hasPrefix(group) || group.hasPrefix(only) }
}

/// The numbers of an answer `result A B …`.
func results(_ line: String) -> [Double]? {
  let words = line.split(separator: " ")
  guard words.first == "result" else { return nil }
  let numbers = words.dropFirst().compactMap { Double($0) }
  return numbers.count == words.count - 1 ? numbers : nil
}
