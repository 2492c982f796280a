import Channel
import Steering

/// Why a stage cannot begin or go on: one line.
public struct StageError: Error, Equatable, Sendable, CustomStringConvertible {
  /// Of the configuration, from 1 on; nil where it is not about a line.
  public var line: Int?
  /// What is wrong and what to do.
  public var problem: String

  /// Something that is about no line of the configuration.
  public init(_ problem: String) { self.problem = problem }

  /// Something in the configuration.
  /// - Parameters:
  ///   - line: from 1 on; nil where it is about all of it.
  ///   - word: what stands there.
  ///   - problem: what is wrong with it.
  ///   - advice: what to write instead.
  public init(line: Int?, word: String, problem: String, advice: String) {
    self.line = line
    self.problem = "\(word): \(problem); \(advice)"
  }

  /// Something in a configuration that is rules.
  public init(_ error: RuleError) {
    self.init(line: error.line, word: error.word, problem: error.problem, advice: error.advice)
  }

  @inline(never) @usableFromInline
  init(brokenBy error: ChannelError) {
    self.init("the driver host broke the channel's rules: \(error)")
  }

  /// With the line in front.
  public var description: String { (line.map { "line \($0): " } ?? "") + problem }
}
