import CLinux
import Channel
import Glibc

/// The host's end of its control socket: short texts, one a message.
struct SupervisorSocket {
  let descriptor: Int32

  func say(_ text: String) {
    ControlMessage.send(String(text.prefix(4000)), to: descriptor, flags: Int32(MSG_DONTWAIT))
  }

  /// What a host may be told.
  enum Word {
    case nothing, stop
    case device(Int32)
    /// Of an instance; the descriptors are the receiver's to close.
    case instance(ControlMessage, descriptors: [Int32])
  }

  /// The supervisor's next word, if there is one. Where it is gone that is a stop.
  func next() -> Word {
    switch ControlMessage.receive(from: descriptor) {
    case .nothing: return .nothing
    case .end: return .stop
    case .message(let message, let descriptors):
      switch message.word {
      case "stop" where descriptors.isEmpty: return .stop
      case "device" where descriptors.count == 1: return .device(descriptors[0])
      default: return .instance(message, descriptors: descriptors)
      }
    }
  }

  /// Waits for the supervisor's next word, at most so long.
  func await(milliseconds: Int32) -> Word {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, milliseconds) > 0 else { return .nothing }
    return next()
  }
}
