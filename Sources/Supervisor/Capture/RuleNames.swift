import Channel
import Memory

/// The names of a set of rules, by the numbers that packets' records have of them. No two sets of a run have a number in
/// common, so that a record means the same when the rules have changed.
struct RuleNames: Sendable, Equatable {
  /// The first rule's number; the others' follow.
  let first: UInt32
  let names: [String]

  subscript(number: UInt32) -> String? {
    let place = Int(number &- first)
    return names.indices.contains(place) ? names[place] : nil
  }

  /// - Returns: nil where a message from a run names no rules.
  init?(_ message: ControlMessage, _ descriptors: [Int32]) {
    guard message.word == "rules", let first: UInt32 = message.number("first"),
      let byteCount: Int = message.number("bytes"), let descriptor = descriptors.first,
      let text = SharedText.read(descriptor, byteCount: byteCount)
    else { return nil }
    self.init(first: first, names: text.split(separator: "\n").map(String.init))
  }

  init(first: UInt32, names: [String]) {
    self.first = first
    self.names = names
  }

  /// Tells a connection of them.
  func say(to connection: PeerConnection) {
    // One that cannot be told reads numbers for names.
    guard let text = try? SharedText(names.joined(separator: "\n"), name: "martlet-rule-names")
    else { return }
    connection.say("rules first=\(first) bytes=\(text.byteCount)", [text.descriptor])
  }
}

/// The rules that a capture has heard of, the latest of them: records lag behind.
struct KnownRules {
  private var sets: [RuleNames] = []
  private var count = 0

  /// Names that are kept at least, where there have been as many.
  private static let limit = 1 << 18

  mutating func note(_ set: RuleNames) {
    sets.append(set)
    count += set.names.count + 1
    while let oldest = sets.first, count - oldest.names.count - 1 >= Self.limit {
      count -= oldest.names.count + 1
      sets.removeFirst()
    }
  }

  subscript(number: UInt32) -> String? {
    for set in sets.reversed() {
      if let name = set[number] { return name }
    }
    return nil
  }
}
