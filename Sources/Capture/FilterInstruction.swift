/// One instruction of a packet filter (classic BPF: McCanne and Jacobson, "The BSD Packet Filter", 1993), as `struct bpf_insn`
/// of libpcap and `struct sock_filter` of Linux lay it out: 8 bytes.
@frozen
public struct FilterInstruction: BitwiseCopyable, Sendable, Equatable {
  /// What to do.
  public var code: UInt16
  /// Instructions to skip where a test holds.
  public var jumpTrue: UInt8
  /// Instructions to skip where it does not.
  public var jumpFalse: UInt8
  /// The operand.
  public var operand: UInt32

  @inlinable
  public init(code: UInt16, jumpTrue: UInt8 = 0, jumpFalse: UInt8 = 0, operand: UInt32 = 0) {
    self.code = code
    self.jumpTrue = jumpTrue
    self.jumpFalse = jumpFalse
    self.operand = operand
  }

  /// Takes so many bytes of every packet; 0 none.
  public static func accept(_ byteCount: UInt32) -> FilterInstruction {
    FilterInstruction(code: 0x06, operand: byteCount)
  }
}

/// Why a program is refused.
public enum FilterError: Error, Equatable, CustomStringConvertible {
  /// It has no instruction, or more than ``FilterProgram/maximumInstructions``.
  case length(Int)
  /// No such instruction.
  case unknownCode(UInt16, at: Int)
  /// A jump behind the program's end.
  case jump(at: Int)
  /// A division by a constant 0.
  case division(at: Int)
  /// A shift by a constant of 32 or more.
  case shift(at: Int)
  /// A memory word that does not exist.
  case memory(at: Int)
  /// A memory word that has not been written on every way there.
  case unwrittenMemory(at: Int)
  /// The last instruction does not return.
  case noReturn

  public var description: String {
    switch self {
    case .length(let count):
      "a filter has 1 to \(FilterProgram.maximumInstructions) instructions, not \(count): make it simpler"
    case .unknownCode(let code, let place):
      "instruction \(place) of the filter is none: code \(code)"
    case .jump(let place): "instruction \(place) of the filter jumps behind its end"
    case .division(let place): "instruction \(place) of the filter divides by 0"
    case .shift(let place): "instruction \(place) of the filter shifts by 32 or more"
    case .memory(let place):
      "instruction \(place) of the filter uses a memory word that is not there"
    case .unwrittenMemory(let place):
      "instruction \(place) of the filter reads a memory word that nothing has written"
    case .noReturn: "the filter's last instruction does not return"
    }
  }
}
