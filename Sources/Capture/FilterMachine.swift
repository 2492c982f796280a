/// Runs a packet filter over frames, with the results of libpcap's bpf_filter. Its memory is made once; nothing is allocated
/// afterwards. One thread.
public struct FilterMachine: ~Copyable, @unchecked Sendable {
  // Invariant: `operations` has room for as many as a program may have, the first of which are a checked program: each place
  // that one of them goes on at is behind it and in the program, the last one returns, memory words are below 16, and each
  // one is written before it is read. `memory` has 16 words.
  let operations: UnsafeMutablePointer<FilterOperation>
  let memory: UnsafeMutablePointer<UInt32>
  private let source: UnsafeMutablePointer<FilterInstruction>
  private let written: UnsafeMutablePointer<UInt16>
  /// What most packets are refused by.
  var tests = FilterTests()

  /// What the machine says where it needs bytes of a frame that are not here.
  @usableFromInline static let needsMore = -1

  /// Takes nothing, before it has a program.
  public init() {
    let capacity = FilterProgram.maximumInstructions
    operations = .allocate(capacity: capacity)
    operations.initialize(
      to: FilterOperation(FilterInstruction.accept(0), at: 0))
    memory = .allocate(capacity: FilterProgram.memoryWords)
    memory.initialize(repeating: 0, count: FilterProgram.memoryWords)
    source = .allocate(capacity: capacity)
    written = .allocate(capacity: capacity)
  }

  deinit {
    operations.deallocate()
    memory.deallocate()
    source.deallocate()
    written.deallocate()
  }

  /// Takes a program from memory that others may write meanwhile: a copy of it is checked, and run from then on. Allocates
  /// nothing.
  /// - Returns: nil, or why it is refused; then nothing is taken.
  public mutating func load(from program: UnsafeRawPointer, count: Int) -> FilterError? {
    operations[0] = FilterOperation(.accept(0), at: 0)
    tests.removeAll()
    guard count >= 1, count <= FilterProgram.maximumInstructions else { return .length(count) }
    UnsafeMutableRawPointer(source).copyMemory(
      from: program, byteCount: count * MemoryLayout<FilterInstruction>.stride)
    if let fault = FilterProgram.fault(source, count: count, written) { return fault }
    for place in 0..<count {
      operations[place] = FilterOperation(source[place], at: place)
    }
    tests.make(of: UnsafePointer(source), count: count)
    return nil
  }

  /// - Throws: why a program is refused.
  public mutating func load(_ program: [FilterInstruction]) throws(FilterError) {
    let fault = program.withUnsafeBytes { bytes -> FilterError? in
      guard let start = bytes.baseAddress else { return .length(0) }
      return load(from: start, count: program.count)
    }
    if let fault { throw fault }
  }

  /// How many bytes of a frame the program takes, 0 for none.
  public mutating func run(_ frame: UnsafeRawBufferPointer) -> UInt32 {
    guard let start = frame.baseAddress else {
      // Nothing is read of a frame without bytes.
      return run(UnsafeRawBufferPointer(start: memory, count: 0))
    }
    let present = UInt32(truncatingIfNeeded: frame.count)
    if FilterTests.refuse(tests.tests, tests.first, reach: tests.reach, start, present) {
      return 0
    }
    let result = Self.run(
      operations, memory, frame: start, present: UInt32(truncatingIfNeeded: frame.count),
      byteCount: UInt32(truncatingIfNeeded: frame.count))
    return UInt32(truncatingIfNeeded: result)
  }

  /// The same of a frame of which not all may be here.
  /// - Parameters:
  ///   - present: bytes from `frame` on that may be read.
  ///   - byteCount: of all of it.
  /// - Returns: ``needsMore`` where it depends on bytes that are not here.
  static func run(
    _ operations: UnsafeMutablePointer<FilterOperation>, _ memory: UnsafeMutablePointer<UInt32>,
    frame: UnsafeRawPointer, present: UInt32, byteCount: UInt32
  ) -> Int {
    var a: UInt32 = 0
    var x: UInt32 = 0
    var place = 0
    // What a load behind the frame's end gives: such a frame is not taken.
    var behind: Int { present < byteCount ? needsMore : 0 }
    @inline(__always) func has(_ offset: UInt32, _ count: UInt32) -> Bool {
      UInt64(offset) &+ UInt64(count) <= UInt64(present)
    }
    @inline(__always) func word(_ offset: UInt32) -> UInt32 {
      UInt32(bigEndian: frame.loadUnaligned(fromByteOffset: Int(offset), as: UInt32.self))
    }
    @inline(__always) func half(_ offset: UInt32) -> UInt32 {
      UInt32(UInt16(bigEndian: frame.loadUnaligned(fromByteOffset: Int(offset), as: UInt16.self)))
    }
    @inline(__always) func byte(_ offset: UInt32) -> UInt32 {
      UInt32(frame.load(fromByteOffset: Int(offset), as: UInt8.self))
    }
    /// X and a constant; what is beyond 32 bits lies in no frame.
    @inline(__always) func indexed(_ operand: UInt32, _ count: UInt32) -> Bool {
      UInt64(x) &+ UInt64(operand) &+ UInt64(count) <= UInt64(present)
    }
    while true {
      let operation = operations + place
      let k = operation.pointee.operand
      place &+= 1
      @inline(__always) func go(_ holds: Bool) {
        place = Int(holds ? operation.pointee.ifTrue : operation.pointee.ifFalse)
      }
      switch operation.pointee.code {
      case .returnConstant: return Int(k)
      case .returnA: return Int(a)
      case .loadWord:
        guard has(k, 4) else { return behind }
        a = word(k)
      case .loadHalf:
        guard has(k, 2) else { return behind }
        a = half(k)
      case .loadByte:
        guard has(k, 1) else { return behind }
        a = byte(k)
      case .loadWordX:
        guard indexed(k, 4) else { return behind }
        a = word(x &+ k)
      case .loadHalfX:
        guard indexed(k, 2) else { return behind }
        a = half(x &+ k)
      case .loadByteX:
        guard indexed(k, 1) else { return behind }
        a = byte(x &+ k)
      case .loadLength: a = byteCount
      case .loadXLength: x = byteCount
      case .loadXHeader:
        guard has(k, 1) else { return behind }
        x = (byte(k) & 0xf) &<< 2
      case .loadConstant: a = k
      case .loadXConstant: x = k
      case .loadMemory: a = memory[Int(k)]
      case .loadXMemory: x = memory[Int(k)]
      case .store: memory[Int(k)] = a
      case .storeX: memory[Int(k)] = x
      case .jump: place = Int(operation.pointee.ifTrue)
      case .equal: go(a == k)
      case .greater: go(a > k)
      case .greaterOrEqual: go(a >= k)
      case .anyBit: go(a & k != 0)
      case .equalX: go(a == x)
      case .greaterX: go(a > x)
      case .greaterOrEqualX: go(a >= x)
      case .anyBitX: go(a & x != 0)
      case .add: a &+= k
      case .subtract: a &-= k
      case .multiply: a &*= k
      // A constant is not 0: that has been checked.
      case .divide: if k != 0 { a /= k }
      case .modulo: if k != 0 { a %= k }
      case .and: a &= k
      case .or: a |= k
      case .xor: a ^= k
      case .shiftLeft: a &<<= k
      case .shiftRight: a &>>= k
      case .addX: a &+= x
      case .subtractX: a &-= x
      case .multiplyX: a &*= x
      case .divideX:
        guard x != 0 else { return 0 }
        a /= x
      case .moduloX:
        guard x != 0 else { return 0 }
        a %= x
      case .andX: a &= x
      case .orX: a |= x
      case .xorX: a ^= x
      case .shiftLeftX: a = x < 32 ? a &<< x : 0
      case .shiftRightX: a = x < 32 ? a &>> x : 0
      case .negate: a = 0 &- a
      case .copyToX: x = a
      case .copyFromX: a = x
      }
    }
  }
}
