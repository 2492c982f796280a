import CLinux

/// Names a credential: 128 random bits, known only to the server and to the client that it was given to.
@frozen
public struct CredentialID: BitwiseCopyable, Sendable, Equatable {
  public var high: UInt64
  public var low: UInt64

  @inlinable
  public init(high: UInt64, low: UInt64) {
    self.high = high
    self.low = low
  }

  /// - Parameter bytes: the most significant first; nil where they are not 16.
  public init?(bytes: [UInt8]) {
    guard bytes.count == 16 else { return nil }
    high = bytes[..<8].reduce(0) { $0 << 8 | UInt64($1) }
    low = bytes[8...].reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// 16 bytes, the most significant first.
  public var bytes: [UInt8] {
    [high, low].flatMap { word in
      stride(from: 56, through: 0, by: -8).map { UInt8(truncatingIfNeeded: word >> UInt64($0)) }
    }
  }

  @inlinable
  public static func == (left: CredentialID, right: CredentialID) -> Bool {
    left.isSame(as: right)
  }

  /// Takes as long whether they differ early or late.
  @inlinable @_noLocks
  public func isSame(as other: CredentialID) -> Bool {
    (high ^ other.high) | (low ^ other.low) == 0
  }
}

/// One command as it stands in the submission ring.
///
///     0   command number (``CommandNumber``), 32 bits
///     4   form of the operands, 16 bits: 0 numbers, 1 a text in their place, 2 a text in the memory's text part
///     6   bytes of the text, 16 bits
///     8   sequence number, above that of the credential's last command
///     16  the credential's id: high, low
///     32  four operands of 64 bits; or up to 32 bytes of text; or the text's offset in the text part
@frozen
public struct CommandSubmission: BitwiseCopyable, Sendable {
  public var number: UInt32
  public var form: UInt16
  public var length: UInt16
  public var sequence: UInt64 = 0
  public var credential = CredentialID(high: 0, low: 0)
  public var operands: InlineArray<4, UInt64>

  /// How operands are to be read.
  public enum Form {
    public static let numbers: UInt16 = 0
    public static let inlineText: UInt16 = 1
    public static let placedText: UInt16 = 2
  }

  /// Bytes of text that an entry itself can hold.
  @inlinable public static var inlineBytes: Int { 32 }

  @inlinable
  public init(_ number: CommandNumber, _ first: UInt64 = 0, _ second: UInt64 = 0) {
    self.number = number.rawValue
    form = 0
    length = 0
    operands = [first, second, 0, 0]
  }

  /// Reads an entry, each word of it once.
  // Invariant: `entry` points at 64 bytes, aligned to 8.
  package init(reading entry: UnsafeRawPointer) {
    let head = relaxed_load64(entry)
    number = UInt32(truncatingIfNeeded: head)
    form = UInt16(truncatingIfNeeded: head &>> 32)
    length = UInt16(truncatingIfNeeded: head &>> 48)
    sequence = relaxed_load64(entry + 8)
    credential = CredentialID(high: relaxed_load64(entry + 16), low: relaxed_load64(entry + 24))
    operands = [
      relaxed_load64(entry + 32), relaxed_load64(entry + 40), relaxed_load64(entry + 48),
      relaxed_load64(entry + 56),
    ]
  }

  // Invariant: as above.
  package func write(to entry: UnsafeMutableRawPointer) {
    relaxed_store64(entry, UInt64(number) | UInt64(form) &<< 32 | UInt64(length) &<< 48)
    relaxed_store64(entry + 8, sequence)
    relaxed_store64(entry + 16, credential.high)
    relaxed_store64(entry + 24, credential.low)
    relaxed_store64(entry + 32, operands[0])
    relaxed_store64(entry + 40, operands[1])
    relaxed_store64(entry + 48, operands[2])
    relaxed_store64(entry + 56, operands[3])
  }
}

/// What became of one command, as it stands in the completion ring.
///
///     0   status (``CommandStatus``), 32 bits
///     4   command number, 32 bits
///     8   the command's sequence number
///     16  six values of 64 bits, which depend on the command
@frozen
public struct CommandCompletion: BitwiseCopyable, Sendable {
  public var statusValue: UInt32
  public var number: UInt32
  public var sequence: UInt64
  public var values: InlineArray<6, UInt64>

  @inlinable
  public init(
    status: CommandStatus, number: UInt32, sequence: UInt64,
    values: InlineArray<6, UInt64> = [0, 0, 0, 0, 0, 0]
  ) {
    statusValue = status.rawValue
    self.number = number
    self.sequence = sequence
    self.values = values
  }

  /// A status that this version does not know counts as a failure.
  public var status: CommandStatus { CommandStatus(rawValue: statusValue) ?? .failed }

  // Invariant: `entry` points at 64 bytes, aligned to 8; each word is read once.
  package init(reading entry: UnsafeRawPointer) {
    let head = relaxed_load64(entry)
    statusValue = UInt32(truncatingIfNeeded: head)
    number = UInt32(truncatingIfNeeded: head &>> 32)
    sequence = relaxed_load64(entry + 8)
    values = [
      relaxed_load64(entry + 16), relaxed_load64(entry + 24), relaxed_load64(entry + 32),
      relaxed_load64(entry + 40), relaxed_load64(entry + 48), relaxed_load64(entry + 56),
    ]
  }

  // Invariant: as above.
  package func write(to entry: UnsafeMutableRawPointer) {
    relaxed_store64(entry, UInt64(statusValue) | UInt64(number) &<< 32)
    relaxed_store64(entry + 8, sequence)
    relaxed_store64(entry + 16, values[0])
    relaxed_store64(entry + 24, values[1])
    relaxed_store64(entry + 32, values[2])
    relaxed_store64(entry + 40, values[3])
    relaxed_store64(entry + 48, values[4])
    relaxed_store64(entry + 56, values[5])
  }
}
