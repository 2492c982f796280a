/// Why an exchange of messages failed. The connection is of no more use after any of these but ``refused``.
public enum MessageError: Error, Sendable, Equatable {
  /// The peer closed the connection.
  case closed
  case system(call: String, errno: Int32)
  /// The peer did not answer, or did not read, in time.
  case timeout
  /// The peer broke the protocol.
  case malformed(String)
  /// The peer answered a command with an errno (0 where it gave none).
  case refused(command: UInt16, errno: UInt32)
}

extension MessageError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .closed: "the peer closed the connection"
    case .system(let call, let errno): "\(call) failed with errno \(errno)"
    case .timeout: "the peer did not answer in time"
    case .malformed(let reason): "the peer broke the vfio-user protocol: \(reason)"
    case .refused(let command, let errno):
      "the peer refused \(VFIOUserCommand(rawValue: command).map { "\($0)" } ?? "command \(command)") with errno \(errno)"
    }
  }
}
