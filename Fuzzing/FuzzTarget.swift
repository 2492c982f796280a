/// What is fuzzed: something that takes bytes from outside, and has to be none the worse for any of them. A trap, an
/// endless loop, a leak or a failed precondition is a finding.
struct FuzzTarget: Sendable {
  /// Of its corpus too: Corpus/NAME.
  let name: String
  let run: @Sendable (FuzzInput) -> Void

  init(_ name: String, _ run: @escaping @Sendable (FuzzInput) -> Void) {
    self.name = name
    self.run = run
  }
}

/// One input, read from the front. What is not there reads as zeros.
struct FuzzInput {
  // Invariant: libFuzzer's, for as long as a target runs.
  private var rest: Slice<UnsafeRawBufferPointer>

  init(_ bytes: UnsafeRawBufferPointer) { rest = bytes[...] }

  var isEmpty: Bool { rest.isEmpty }
  /// All that is left.
  var bytes: [UInt8] { Array(rest) }
  /// The same as text, repaired where it is no UTF-8.
  var text: String { String(decoding: rest, as: UTF8.self) }

  mutating func number<N: FixedWidthInteger>(_: N.Type = N.self) -> N {
    var value: N = 0
    for byte in 0..<N.bitWidth / 8 {
      guard let next = rest.popFirst() else { break }
      value |= N(truncatingIfNeeded: next) << (8 * byte)
    }
    return value
  }

  /// An input of its own, of the next bytes.
  mutating func part(_ count: Int) -> FuzzInput {
    defer { rest = rest.dropFirst(count) }
    return FuzzInput(UnsafeRawBufferPointer(rebasing: rest.prefix(count)))
  }

  mutating func bytes(_ count: Int) -> [UInt8] {
    defer { rest = rest.dropFirst(count) }
    return Array(rest.prefix(count))
  }
}

/// What must hold whatever the input was.
func require(_ holds: Bool, _ what: @autoclosure () -> String) {
  if !holds { fatalError(what()) }
}
