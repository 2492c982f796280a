import CLinux
import Glibc

/// The host's end of its control socket: short texts, one a message.
struct SupervisorSocket {
  let descriptor: Int32

  func say(_ text: String) {
    let bytes = Array(text.utf8.prefix(4000))
    _ = linux_send_descriptors(descriptor, bytes, bytes.count, nil, 0, Int32(MSG_DONTWAIT))
  }

  /// What a host that waits for its device may be told.
  enum Word {
    case nothing, stop
    case device(Int32)
  }

  /// Waits for the supervisor's next word, at most so long.
  func await(milliseconds: Int32) -> Word {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, milliseconds) > 0 else { return .nothing }
    var buffer = [UInt8](repeating: 0, count: 256)
    var received: Int32 = -1
    var count: Int32 = 0
    let length = linux_receive_descriptors(
      descriptor, &buffer, buffer.count, &received, 1, &count, Int32(MSG_DONTWAIT))
    if length == -Int(EAGAIN) || length == -Int(EINTR) { return .nothing }
    if length <= 0 { return .stop }
    switch String(decoding: buffer[..<length], as: UTF8.self) {
    case "stop": return .stop
    case "device" where count == 1: return .device(received)
    default: return .nothing
    }
  }

  /// Reads what the supervisor sent.
  /// - Returns: false when it says "stop" or is gone.
  func mayGoOn() -> Bool {
    var buffer = [UInt8](repeating: 0, count: 256)
    var count: Int32 = 0
    let length = linux_receive_descriptors(
      descriptor, &buffer, buffer.count, nil, 0, &count, Int32(MSG_DONTWAIT))
    if length == -Int(EAGAIN) || length == -Int(EINTR) { return true }
    if length <= 0 { return false }
    return String(decoding: buffer[..<length], as: UTF8.self) != "stop"
  }
}
