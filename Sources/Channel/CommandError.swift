import Memory

/// Why a client's command did not come to a good end.
public enum CommandError: Error, Equatable, Sendable {
  /// The server's answer.
  case refused(CommandStatus)
  /// As many commands are on the way as there can be: take completions first.
  case full
  /// A text of more than ``CommandLayout/textBytes`` bytes.
  case textTooLong(byteCount: Int)
  /// No answer came in time; it may still come.
  case noAnswer(milliseconds: Int)
  /// The server has closed the channel.
  case closed(CommandClosure)
  /// The server's index went further than there are entries, or an answer is to no command on the way.
  case brokenServer
  /// The memory's header does not say what was agreed.
  case foreign
  case memory(MemoryError)
}

extension CommandError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .refused(let status):
      "the command was refused: \(status.name.replacingUnderscores)"
    case .full: "too many commands are on the way: take completions first"
    case .textTooLong(let byteCount):
      "a text of \(byteCount) bytes is too long: a command takes \(CommandLayout.textBytes)"
    case .noAnswer(let milliseconds): "the command server has not answered in \(milliseconds) ms"
    case .closed(let closure):
      "the server has closed the command channel: \(closure.name.replacingUnderscores)"
    case .brokenServer: "the server broke the rules of the command channel"
    case .foreign: "the command channel's memory is not of this version of Martlet"
    case .memory(let error): error.description
    }
  }
}

extension String {
  fileprivate var replacingUnderscores: String { String(map { $0 == "_" ? " " : $0 }) }
}
