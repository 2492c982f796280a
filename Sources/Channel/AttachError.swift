import Glibc

/// Why a process and a supervisor do not come together: one line.
public enum AttachError: Error, Equatable, Sendable {
  /// The peer speaks another version of the messages.
  case version(String)
  /// Another message than the one that was due.
  case unexpected(String)
  /// A field that the message must have is not there.
  case missing(String)
  /// A field has a value that it cannot have.
  case bad(name: String, value: String)
  /// Another number of descriptors came than the message speaks of.
  case descriptors(Int, needed: Int)
  /// The supervisor does not want us: its reason, for people.
  case refused(String)
  /// Nobody can be reached at the socket.
  case noSupervisor(path: String, errno: Int32)
  /// The supervisor said nothing in time.
  case noAnswer(milliseconds: Int32)
  /// The supervisor closed the connection.
  case ended
}

extension AttachError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .version(let version):
      "the other end speaks version \(version) of the messages, this one version \(AttachRequest.version)"
    case .unexpected(let word): "the message \"\(word.prefix(32))\" was not due"
    case .missing(let name): "the message lacks \(name)"
    case .bad(let name, let value): "\(value.prefix(64)) is no value of \(name)"
    case .descriptors(let count, let needed):
      "\(count) descriptors came with the message, not \(needed)"
    case .refused(let reason): "the supervisor refuses: \(reason)"
    case .noSupervisor(let path, ENOENT):
      "there is no socket \(path): start `martlet run --share \(path)` first"
    case .noSupervisor(let path, ECONNREFUSED):
      "nobody listens at \(path): start `martlet run --share \(path)` first"
    case .noSupervisor(let path, EACCES): "this user may not use the socket \(path)"
    case .noSupervisor(let path, let errno): "\(path): \(String(cString: strerror(errno)))"
    case .noAnswer(let milliseconds): "the supervisor has not answered in \(milliseconds) ms"
    case .ended: "the supervisor has closed the connection"
    }
  }
}

/// The fields of a message, each checked as it is read.
struct CheckedFields {
  let message: ControlMessage

  init(_ message: ControlMessage, word: String) throws(AttachError) {
    guard message.word == word else { throw .unexpected(message.word) }
    self.message = message
    let version = message["version"] ?? "none"
    guard version == "\(AttachRequest.version)" else { throw .version(version) }
  }

  func text(_ name: String) throws(AttachError) -> String {
    guard let value = message[name] else { throw .missing(name) }
    return value
  }

  func number<N: FixedWidthInteger>(
    _ name: String, in range: ClosedRange<N>
  ) throws(AttachError) -> N {
    let value = try text(name)
    guard let number = N(value), range.contains(number) else {
      throw .bad(name: name, value: value)
    }
    return number
  }

  /// Bytes as hexadecimal digits, two for each; none where the field is not there.
  func bytes(_ name: String, upTo limit: Int) throws(AttachError) -> [UInt8] {
    guard let value = message[name] else { return [] }
    guard let bytes = Hexadecimal.bytes(value), bytes.count <= limit else {
      throw .bad(name: name, value: value)
    }
    return bytes
  }
}

/// Bytes as text: two digits for each, no matter whether small or capital.
public enum Hexadecimal {
  public static func text(_ bytes: some Sequence<UInt8>) -> String {
    let digits = Array("0123456789abcdef")
    return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
  }

  /// - Returns: nil where there is anything else than pairs of digits.
  public static func bytes(_ text: String) -> [UInt8]? {
    let digits = text.utf8.compactMap { byte -> UInt8? in
      switch byte {
      case 48...57: byte - 48
      case 97...102: byte - 87
      case 65...70: byte - 55
      default: nil
      }
    }
    guard digits.count == text.utf8.count, digits.count % 2 == 0 else { return nil }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
  }
}
