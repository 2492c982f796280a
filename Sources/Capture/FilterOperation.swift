/// An instruction as the machine runs it: dense codes, and jumps by place.
struct FilterOperation: BitwiseCopyable {
  var code: Code
  /// Where to go on where a test holds, and where not.
  var ifTrue: UInt16 = 0
  var ifFalse: UInt16 = 0
  var operand: UInt32 = 0

  /// What to do.
  enum Code: UInt8, BitwiseCopyable {
    case returnConstant, returnA
    case loadWord, loadHalf, loadByte
    case loadWordX, loadHalfX, loadByteX
    case loadLength, loadXLength, loadXHeader
    case loadConstant, loadXConstant, loadMemory, loadXMemory, store, storeX
    case jump
    case equal, greater, greaterOrEqual, anyBit
    case equalX, greaterX, greaterOrEqualX, anyBitX
    case add, subtract, multiply, divide, modulo, and, or, xor, shiftLeft, shiftRight
    case addX, subtractX, multiplyX, divideX, moduloX, andX, orX, xorX, shiftLeftX, shiftRightX
    case negate, copyToX, copyFromX

    /// The instructions that Linux allows, by `struct bpf_insn`'s code.
    init?(_ code: UInt16) {
      switch code {
      case 0x06: self = .returnConstant
      case 0x16: self = .returnA
      case 0x20: self = .loadWord
      case 0x28: self = .loadHalf
      case 0x30: self = .loadByte
      case 0x40: self = .loadWordX
      case 0x48: self = .loadHalfX
      case 0x50: self = .loadByteX
      case 0x80: self = .loadLength
      case 0x81: self = .loadXLength
      case 0xb1: self = .loadXHeader
      case 0x00: self = .loadConstant
      case 0x01: self = .loadXConstant
      case 0x60: self = .loadMemory
      case 0x61: self = .loadXMemory
      case 0x02: self = .store
      case 0x03: self = .storeX
      case 0x05: self = .jump
      case 0x15: self = .equal
      case 0x25: self = .greater
      case 0x35: self = .greaterOrEqual
      case 0x45: self = .anyBit
      case 0x1d: self = .equalX
      case 0x2d: self = .greaterX
      case 0x3d: self = .greaterOrEqualX
      case 0x4d: self = .anyBitX
      case 0x04: self = .add
      case 0x14: self = .subtract
      case 0x24: self = .multiply
      case 0x34: self = .divide
      case 0x94: self = .modulo
      case 0x54: self = .and
      case 0x44: self = .or
      case 0xa4: self = .xor
      case 0x64: self = .shiftLeft
      case 0x74: self = .shiftRight
      case 0x0c: self = .addX
      case 0x1c: self = .subtractX
      case 0x2c: self = .multiplyX
      case 0x3c: self = .divideX
      case 0x9c: self = .moduloX
      case 0x5c: self = .andX
      case 0x4c: self = .orX
      case 0xac: self = .xorX
      case 0x6c: self = .shiftLeftX
      case 0x7c: self = .shiftRightX
      case 0x84: self = .negate
      case 0x07: self = .copyToX
      case 0x87: self = .copyFromX
      default: return nil
      }
    }
  }

  init(_ instruction: FilterInstruction, at place: Int) {
    code = Code(instruction.code) ?? .returnConstant
    operand = instruction.operand
    if code == .jump {
      ifTrue = UInt16(truncatingIfNeeded: place + 1 + Int(operand))
    } else {
      ifTrue = UInt16(truncatingIfNeeded: place + 1 + Int(instruction.jumpTrue))
      ifFalse = UInt16(truncatingIfNeeded: place + 1 + Int(instruction.jumpFalse))
    }
  }
}
