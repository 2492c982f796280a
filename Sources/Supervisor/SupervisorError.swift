import Channel
import Confinement
import Glibc
import PCI

/// Why the supervisor gave up: one line, with the remedy where there is one.
public enum SupervisorError: Error, Sendable {
  case system(String, Int32)
  case cannotStart(String, String)
  /// A process said itself why it cannot go on.
  case refused(process: String, reason: String)
  /// The driver host has said that the device failed.
  case fault(String)
  /// One driver host after the other has failed.
  case gaveUp(times: Int, seconds: Int, last: String)
  case ended(process: String, how: ProcessEnd)
  /// A confined process made a system call that it may not make.
  case violation(process: String, call: Violation)
  case timedOut(process: String, waitingFor: String)
  case device(String)
  case input(String)
  /// Nobody listens at a run's socket.
  case unreachable(String)
  case checkFailed(String)
}

extension SupervisorError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .system(let call, let errno): "\(call): \(String(cString: strerror(errno)))"
    case .cannotStart(let name, let reason): "cannot start the \(name): \(reason)"
    case .refused(let process, let reason): "\(process): \(reason)"
    case .fault(let reason): "driver host: \(reason)"
    case .gaveUp(let times, let seconds, let last):
      "the driver host has failed \(times) times within \(seconds) s and is not started again; the last time: \(last)"
    case .ended(let process, let how): "the \(process) \(how)"
    case .violation(let process, let call):
      "the \(process) was killed for a system call that its filter does not allow: \(call)"
    case .timedOut(let process, let what): "the \(process) did not say \(what) in time"
    case .device(let reason), .input(let reason), .unreachable(let reason),
      .checkFailed(let reason):
      reason
    }
  }
}

extension SupervisorError {
  /// What a process says before it ends, as an error; nil for other messages.
  init?(lastWord message: ControlMessage, of process: String) {
    switch message.word {
    case "error": self = .refused(process: process, reason: message.rest)
    case "fault": self = .fault(message.rest)
    case "violation":
      guard let call = Violation(message.rest) else { return nil }
      self = .violation(process: process, call: call)
    default: return nil
    }
  }
}

/// Runs what can fail for want of memory or a channel, and says so as the supervisor does.
func asInput<R: ~Copyable, E: Error & CustomStringConvertible>(
  _ body: () throws(E) -> R
) throws(SupervisorError) -> R {
  do throws(E) {
    return try body()
  } catch {
    throw .input(error.description)
  }
}
