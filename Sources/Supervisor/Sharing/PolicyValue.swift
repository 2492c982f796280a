import Channel
import Glibc

/// What a policy's texts and numbers stand for.
enum PolicyValue {
  /// The value, or what it has to be, for the message where it is not.
  enum Reading<Value> {
    case value(Value)
    case wrong(String)
  }

  static func shown(_ tree: TOMLTree) -> String {
    switch tree {
    case .string(let text): "\"\(text.prefix(64))\""
    case .integer(let number): "\(number)"
    default: tree.kind
    }
  }

  static func user(_ tree: TOMLTree) -> Reading<uid_t> {
    let due = "users of this system by name or number"
    switch tree {
    case .integer(let number):
      return uid_t(exactly: number).map { .value($0) } ?? .wrong(due)
    case .string(let name):
      return getpwnam(name).map { .value($0.pointee.pw_uid) } ?? .wrong(due)
    default: return .wrong(due)
    }
  }

  static func group(_ tree: TOMLTree) -> Reading<gid_t> {
    let due = "a group of this system by name or number"
    switch tree {
    case .integer(let number):
      return gid_t(exactly: number).map { .value($0) } ?? .wrong(due)
    case .string(let name):
      return getgrnam(name).map { .value($0.pointee.gr_gid) } ?? .wrong(due)
    default: return .wrong(due)
    }
  }

  static func mode(_ tree: TOMLTree) -> Reading<mode_t> {
    guard case .string(let text) = tree, let mode = mode_t(text, radix: 8), mode <= 0o777 else {
      return .wrong("permissions in octal, such as \"0660\"")
    }
    return .value(mode)
  }

  /// As psi.rst has it: a window of half a second to ten, and less of it stalled.
  static func pressure(_ tree: TOMLTree) -> Reading<String> {
    let due =
      "\"off\", or \"some 300000 2000000\": microseconds of stall in a window of 500000 to 10000000 (without CAP_SYS_RESOURCE a multiple of 2000000)"
    guard case .string(let text) = tree else { return .wrong(due) }
    if text == "off" { return .value(text) }
    let parts = text.split(separator: " ", omittingEmptySubsequences: false)
    guard parts.count == 3, ["some", "full"].contains(parts[0]), let stall = UInt32(parts[1]),
      let window = UInt32(parts[2]), (500_000...10_000_000).contains(window), stall > 0,
      stall < window
    else { return .wrong(due) }
    return .value(text)
  }

  static func name(_ tree: TOMLTree) -> Reading<String> {
    guard case .string(let text) = tree, AttachRequest.isName(text) else {
      return .wrong("1 to 32 letters, digits, -, _ and .")
    }
    return .value(text)
  }

  /// Counters are named after it.
  static func stageName(_ tree: TOMLTree) -> Reading<String> {
    guard case .string(let text) = tree, (1...16).contains(text.utf8.count),
      text.utf8.allSatisfy({ (97...122).contains($0) || (48...57).contains($0) || $0 == 95 })
    else { return .wrong("1 to 16 lower-case letters, digits and _") }
    return .value(text)
  }

  static func text(_ tree: TOMLTree) -> Reading<String> {
    guard case .string(let text) = tree else { return .wrong("a text") }
    return .value(text)
  }

  static func word(_ tree: TOMLTree, _ words: [String]) -> Reading<String> {
    guard case .string(let text) = tree, words.contains(text) else {
      return .wrong(words.map { "\"\($0)\"" }.joined(separator: " or "))
    }
    return .value(text)
  }

  static func digest(_ tree: TOMLTree) -> Reading<[UInt8]> {
    guard case .string(let text) = tree, let bytes = Hexadecimal.bytes(text), bytes.count == 32
    else {
      return .wrong(
        "64 hexadecimal digits (`sha256sum` of the file with the token)")
    }
    return .value(bytes)
  }

  static func claim(_ tree: TOMLTree) -> Reading<ClaimLimit> {
    guard case .string(let text) = tree, let limit = ClaimLimit(text) else {
      return .wrong(
        "claims such as \"ipv4:10.0.0.3\", \"ipv4:10.0.0.0/24/tcp/8000-8999\", \"group:224.0.0.251\", \"rest\" or \"any\""
      )
    }
    return .value(limit)
  }
}
