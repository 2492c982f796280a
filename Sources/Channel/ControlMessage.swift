import CLinux
import Glibc

/// A short text between two processes over a UNIX socket of type SEQPACKET: a word, then `name=value` pairs, parted by
/// spaces. Descriptors may go with it.
///
/// Neither end believes the other: a message is bounded, and what it says is checked by whoever acts on it.
public struct ControlMessage: Sendable, Equatable {
  /// What the message is.
  public var word: String
  /// All that follows the word, with control characters made visible.
  public var rest: String

  /// The longest message, in bytes; what is longer is cut.
  public static let maximumBytes = 16384
  /// The most descriptors that go with one message.
  public static let maximumDescriptors = 64
  /// The most that the kernel lets come with one (SCM_MAX_FD).
  private static let possibleDescriptors = 253

  /// - Parameter text: as it came.
  public init(_ text: String) {
    let parts = text.split(separator: " ", maxSplits: 1)
    word = parts.first.map(String.init) ?? ""
    rest = String(
      (parts.dropFirst().first ?? "").unicodeScalars.map { $0.value < 32 ? "?" : Character($0) })
  }

  /// The value of the first `name=value` in the message.
  public subscript(name: String) -> String? {
    for pair in rest.split(separator: " ") {
      let parts = pair.split(separator: "=", maxSplits: 1)
      if parts.count == 2 && parts[0] == name { return String(parts[1]) }
    }
    return nil
  }

  /// The value of `name=value` as a number, nil where there is none or it does not fit.
  public func number<N: FixedWidthInteger>(_ name: String) -> N? {
    self[name].flatMap { N($0) }
  }

  /// Sends a text. Any thread.
  /// - Parameters:
  ///   - descriptors: go with the message; they stay the caller's.
  ///   - flags: such as MSG_DONTWAIT.
  /// - Returns: whether it was taken whole.
  @discardableResult
  public static func send(
    _ text: String, descriptors: [Int32] = [], to socket: Int32, flags: Int32 = 0
  ) -> Bool {
    let bytes = Array(text.utf8.prefix(maximumBytes))
    let sent = linux_send_descriptors(
      socket, bytes, bytes.count, descriptors, Int32(descriptors.count),
      flags | Int32(MSG_NOSIGNAL))
    return sent == bytes.count
  }

  /// What one look at a socket gave.
  public enum Arrival: Sendable {
    /// Nothing was there.
    case nothing
    /// The peer has gone.
    case end
    /// A message, and the descriptors that came with it: the caller's to close from now on.
    case message(ControlMessage, descriptors: [Int32])
  }

  /// Takes the next message if there is one. Does not wait.
  public static func receive(from socket: Int32) -> Arrival {
    var buffer = [UInt8](repeating: 0, count: maximumBytes)
    var descriptors = [Int32](repeating: -1, count: possibleDescriptors)
    var count: Int32 = 0
    var length = -Int(ECONNRESET)
    // A peer that has gone without having read all that it was sent is said once, before what it has said itself.
    for _ in 0..<2 where length == -Int(ECONNRESET) {
      length = linux_receive_descriptors(
        socket, &buffer, buffer.count, &descriptors, Int32(descriptors.count), &count,
        Int32(MSG_DONTWAIT))
    }
    if length == -Int(EAGAIN) || length == -Int(EINTR) { return .nothing }
    if length <= 0 { return .end }
    return .message(
      ControlMessage(String(decoding: buffer[..<length], as: UTF8.self)),
      descriptors: descriptors.prefix(Int(count)).filter { $0 >= 0 })
  }
}
