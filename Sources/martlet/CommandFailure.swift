import ArgumentParser

/// Ends a command with one line on standard error, and a code that scripts can use.
struct CommandFailure: Error {
  /// 1: what was asked for was not done, or a check failed. 2: there is no such thing as was named.
  var code: Int32
  var text: String

  static func failed(_ error: any Error) -> CommandFailure {
    CommandFailure(code: 1, text: "\(error)")
  }

  static func input(_ error: any Error) -> CommandFailure {
    CommandFailure(code: 2, text: "\(error)")
  }

  static let exitCodes = """
    Exit codes: 0 all is well, 1 a check failed or the kernel refused, 2 no such function, 64 the \
    command line makes no sense.
    """
}

extension ParsableCommand {
  /// Runs a command's body; a failure is one line on standard error and an exit code.
  func reporting(_ body: () throws -> Void) throws {
    do {
      try body()
    } catch let failure as CommandFailure {
      writeLine("martlet \(Self._commandName): \(failure.text)", to: 2)
      throw ExitCode(failure.code)
    }
  }
}
