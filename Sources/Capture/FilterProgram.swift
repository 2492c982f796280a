/// What a packet filter must be, whoever has made it: the rules of Linux (net/core/filter.c, bpf_check_classic).
public enum FilterProgram {
  public static let maximumInstructions = 4096
  /// Words of memory that a program has.
  static let memoryWords = 16

  /// - Throws: the first rule that is broken.
  public static func check(_ program: [FilterInstruction]) throws(FilterError) {
    var written = [UInt16](repeating: 0, count: max(1, program.count))
    var failure: FilterError?
    program.withUnsafeBufferPointer { program in
      written.withUnsafeMutableBufferPointer { written in
        guard let first = program.baseAddress, let memory = written.baseAddress else {
          failure = .length(0)
          return
        }
        failure = fault(first, count: program.count, memory)
      }
    }
    if let failure { throw failure }
  }

  /// The first rule that a program breaks, nil where there is none. Allocates nothing. The time that it takes grows with the
  /// length of the program only.
  /// - Parameter written: room for `count` words.
  static func fault(
    _ program: UnsafePointer<FilterInstruction>, count: Int, _ written: UnsafeMutablePointer<UInt16>
  ) -> FilterError? {
    guard count >= 1, count <= maximumInstructions else { return .length(count) }
    for place in 0..<count {
      if let fault = fault(of: program[place], at: place, count: count) { return fault }
    }
    guard program[count - 1].code & 7 == 6 else { return .noReturn }
    return unwritten(program, count: count, written)
  }

  private static func fault(
    of instruction: FilterInstruction, at place: Int, count: Int
  ) -> FilterError? {
    guard let operation = FilterOperation.Code(instruction.code) else {
      return .unknownCode(instruction.code, at: place)
    }
    let operand = instruction.operand
    let behind = count - place - 1
    switch operation {
    case .jump where Int(operand) >= behind: return .jump(at: place)
    case .equal, .greater, .greaterOrEqual, .anyBit, .equalX, .greaterX, .greaterOrEqualX, .anyBitX:
      let furthest = Int(max(instruction.jumpTrue, instruction.jumpFalse))
      return furthest >= behind ? .jump(at: place) : nil
    case .divide where operand == 0, .modulo where operand == 0: return .division(at: place)
    case .shiftLeft where operand >= 32, .shiftRight where operand >= 32: return .shift(at: place)
    case .loadMemory, .loadXMemory, .store, .storeX:
      return operand >= UInt32(memoryWords) ? .memory(at: place) : nil
    default: return nil
    }
  }

  /// Follows which memory words have been written on every way to an instruction; a bit for each. Jumps lead forward only.
  private static func unwritten(
    _ program: UnsafePointer<FilterInstruction>, count: Int, _ written: UnsafeMutablePointer<UInt16>
  ) -> FilterError? {
    for place in 0..<count { written[place] = .max }
    var valid: UInt16 = 0
    for place in 0..<count {
      valid &= written[place]
      let instruction = program[place]
      let operand = Int(instruction.operand)
      switch FilterOperation.Code(instruction.code) {
      case .store, .storeX: valid |= 1 << UInt16(operand)
      case .loadMemory, .loadXMemory:
        if valid & 1 << UInt16(operand) == 0 { return .unwrittenMemory(at: place) }
      case .jump:
        written[place + 1 + operand] &= valid
        valid = .max
      case .equal, .greater, .greaterOrEqual, .anyBit, .equalX, .greaterX, .greaterOrEqualX,
        .anyBitX:
        written[place + 1 + Int(instruction.jumpTrue)] &= valid
        written[place + 1 + Int(instruction.jumpFalse)] &= valid
        valid = .max
      default: break
      }
    }
    return nil
  }
}
