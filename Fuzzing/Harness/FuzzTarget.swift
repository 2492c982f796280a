/// What is fuzzed: something that takes bytes from outside, and has to be none the worse for any of them. A trap, an
/// endless loop, a leak or a failed precondition is a finding.
public struct FuzzTarget: Sendable {
  /// Of its corpus too: Corpus/NAME.
  let name: String
  let run: @Sendable (FuzzInput) -> Void

  public init(_ name: String, _ run: @escaping @Sendable (FuzzInput) -> Void) {
    self.name = name
    self.run = run
  }
}

/// One input, read from the front. What is not there reads as zeros.
public struct FuzzInput {
  // Invariant: libFuzzer's, for as long as a target runs.
  @usableFromInline var rest: UnsafeRawBufferPointer

  @inlinable public init(_ bytes: UnsafeRawBufferPointer) { rest = bytes }

  @inlinable public var isEmpty: Bool { rest.isEmpty }
  /// All that is left.
  public var bytes: [UInt8] { Array(rest) }
  /// The same as text, repaired where it is no UTF-8.
  public var text: String { String(decoding: rest, as: UTF8.self) }

  @inlinable public mutating func number<N: FixedWidthInteger>(_: N.Type = N.self) -> N {
    let count = min(rest.count, N.bitWidth / 8)
    var value: N = 0
    for byte in 0..<count { value |= N(truncatingIfNeeded: rest[byte]) << (8 * byte) }
    drop(count)
    return value
  }

  /// An input of its own, of the next bytes.
  public mutating func part(_ count: Int) -> FuzzInput {
    defer { drop(count) }
    return FuzzInput(UnsafeRawBufferPointer(rebasing: rest.prefix(count)))
  }

  public mutating func bytes(_ count: Int) -> [UInt8] {
    defer { drop(count) }
    return Array(rest.prefix(count))
  }

  @inlinable mutating func drop(_ count: Int) {
    rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
  }
}

/// What must hold whatever the input was.
@inlinable public func require(_ holds: Bool, _ what: @autoclosure () -> String) {
  if !holds { fatalError(what()) }
}
