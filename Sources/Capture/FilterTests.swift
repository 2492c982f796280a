import Memory

/// The tests of a filter by which nearly all packets are refused, made for speed: each compares bits of 4 bytes at a constant
/// place. What cannot be said so (arithmetic, a longer IPv4 header, a frame that is too short) is left to the filter itself,
/// and so is every packet that is taken.
struct FilterTests: ~Copyable {
  // Invariant: room for as many tests as a program has instructions. Those that `first` leads to read bytes before `reach`
  // only, and each leads to one behind it, to `refused` or to `unknown`.
  let tests: UnsafeMutablePointer<Test>
  private let known: UnsafeMutablePointer<Known>
  /// Of a packet that was refused not long ago.
  private let path: UnsafeMutablePointer<FilterPath>
  /// Packets that were refused another way.
  private let strays: UnsafeMutablePointer<UInt32>
  private(set) var first = unknown
  /// Bytes that a frame must have.
  private(set) var reach: UInt32 = 0

  static let unknown: UInt16 = 0xffff
  static let refused: UInt16 = 0xfffe
  /// Bytes of an IPv4 header without options, as nearly all are.
  private static let usualHeader: UInt32 = 20
  /// No test looks further.
  private static let furthest: UInt32 = 1024

  struct Test: BitwiseCopyable {
    var offset: UInt32 = 0
    var mask: UInt32 = 0
    var value: UInt32 = 0
    var ifTrue = FilterTests.unknown
    var ifFalse = FilterTests.unknown

    @inline(__always)
    func holds(_ frame: UnsafeRawPointer) -> Bool {
      frame.loadUnaligned(fromByteOffset: Int(offset), as: UInt32.self) & mask == value
    }
  }

  /// What A and X are before an instruction, whichever way leads there.
  private struct Known: BitwiseCopyable {
    var isReached = false
    /// Whether X is ``usualHeader``.
    var hasHeader = false
    /// A is some bits of so many bytes of the frame; 0 bytes where it is something else.
    var byteCount: UInt8 = 0
    var offset: UInt32 = 0
    var mask: UInt32 = .max
  }

  init() {
    tests = .allocate(capacity: FilterProgram.maximumInstructions)
    known = .allocate(capacity: FilterProgram.maximumInstructions)
    path = .allocate(capacity: 1)
    path.initialize(to: FilterPath())
    strays = .allocate(capacity: 1)
    strays.initialize(to: 0)
  }

  deinit {
    tests.deallocate()
    known.deallocate()
    path.deallocate()
    strays.deallocate()
  }

  /// Nothing is refused.
  mutating func removeAll() {
    first = Self.unknown
    path.pointee = FilterPath()
  }

  /// Whether the filter takes nothing of a frame; false where that is not known.
  @inline(__always)
  static func refuse(
    _ tests: UnsafeMutablePointer<Test>, _ first: UInt16, reach: UInt32, _ frame: UnsafeRawPointer,
    _ present: UInt32
  ) -> Bool {
    if present < reach { return false }
    var place = first
    while place < refused {
      let test = tests + Int(place)
      place = test.pointee.holds(frame) ? test.pointee.ifTrue : test.pointee.ifFalse
    }
    return place == refused
  }

  /// The first packet from `first` on that is not refused, or that has several slots; `count` where there is none.
  /// - Parameters:
  ///   - packets: what positions count from.
  ///   - byteCount: from there on; what lies elsewhere is not looked at.
  @inline(never)
  func firstNotRefused(
    _ slots: UnsafePointer<Descriptor>, _ first: Int, _ count: Int, _ packets: UnsafeRawPointer,
    _ byteCount: UInt64
  ) -> Int {
    let special = Descriptor.Flags.more.rawValue | Descriptor.Flags.offload.rawValue
    let path = path.pointee
    var index = first
    while index < count {
      let slot = slots[index]
      let position = slot.position
      guard slot.flags.rawValue & special == 0, position &+ UInt64(slot.length) <= byteCount
      else { break }
      let frame = packets + Int(position)
      guard path.isWay(of: frame, slot.length) || refuse(frame, slot.length) else { break }
      index &+= 1
    }
    return index
  }

  /// As ``refuse(_:_:reach:_:_:)``; now and then the way that it takes is tried first from then on.
  @inline(never)
  private func refuse(_ frame: UnsafeRawPointer, _ present: UInt32) -> Bool {
    guard Self.refuse(tests, first, reach: reach, frame, present) else { return false }
    if strays.pointee & 63 == 0,
      let new = FilterPath(tests, from: first, reach: reach, of: frame)
    {
      path.pointee = new
    }
    strays.pointee &+= 1
    return true
  }

  /// Of a program that has been checked. Jumps lead forward only: each instruction is looked at once.
  mutating func make(of program: UnsafePointer<FilterInstruction>, count: Int) {
    reach = 4
    for place in 0..<count {
      tests[place] = Test()
      known[place] = Known()
    }
    known[0].isReached = true
    for place in 0..<count where known[place].isReached { make(place, program) }
    // Instructions that only load lead on to the next that tests.
    for place in 0..<count {
      tests[place].ifTrue = target(tests[place].ifTrue, program)
      tests[place].ifFalse = target(tests[place].ifFalse, program)
    }
    first = target(0, program)
    path.pointee = FilterPath()
    strays.pointee = 0
  }

  private func target(_ place: UInt16, _ program: UnsafePointer<FilterInstruction>) -> UInt16 {
    if place >= Self.refused { return place }
    var place = Int(place)
    // Bounded: each step leads forward, and the last instruction returns.
    while true {
      switch FilterOperation.Code(program[place].code) {
      case .loadWord, .loadHalf, .loadByte, .loadWordX, .loadHalfX, .loadByteX, .and: place += 1
      case .jump: place += 1 + Int(program[place].operand)
      case .returnConstant where program[place].operand == 0: return Self.refused
      case .equal, .anyBit, .loadXHeader: return UInt16(place)
      default: return Self.unknown
      }
    }
  }

  private mutating func make(_ place: Int, _ program: UnsafePointer<FilterInstruction>) {
    let instruction = program[place]
    let operand = instruction.operand
    var now = known[place]
    switch FilterOperation.Code(instruction.code) {
    case .loadWord: load(&now, 4, operand)
    case .loadHalf: load(&now, 2, operand)
    case .loadByte: load(&now, 1, operand)
    case .loadWordX: loadBehindHeader(&now, 4, operand)
    case .loadHalfX: loadBehindHeader(&now, 2, operand)
    case .loadByteX: loadBehindHeader(&now, 1, operand)
    case .loadXHeader:
      var header = Known()
      load(&header, 1, operand)
      guard test(place, header, mask: 0xf, equals: Self.usualHeader / 4) else { return }
      tests[place].ifTrue = UInt16(place + 1)
      now.hasHeader = true
    case .and: now.mask &= operand
    case .jump: return lead(to: place + 1 + Int(operand), now)
    case .equal, .anyBit:
      let isEqual = FilterOperation.Code(instruction.code) == .equal
      let ifTrue = place + 1 + Int(instruction.jumpTrue)
      let ifFalse = place + 1 + Int(instruction.jumpFalse)
      lead(to: ifTrue, now)
      lead(to: ifFalse, now)
      let mask: UInt32 = isEqual ? .max : operand
      guard test(place, now, mask: mask, equals: isEqual ? operand : 0) else { return }
      // Any bit of some is what is not 0 in all of them.
      tests[place].ifTrue = UInt16(isEqual ? ifTrue : ifFalse)
      tests[place].ifFalse = UInt16(isEqual ? ifFalse : ifTrue)
      return
    default: return
    }
    lead(to: place + 1, now)
  }

  private func load(_ now: inout Known, _ byteCount: UInt8, _ offset: UInt32) {
    now.byteCount = offset <= Self.furthest ? byteCount : 0
    now.offset = offset
    now.mask = .max
  }

  private func loadBehindHeader(_ now: inout Known, _ byteCount: UInt8, _ offset: UInt32) {
    guard now.hasHeader, offset <= Self.furthest else {
      now.byteCount = 0
      return
    }
    load(&now, byteCount, offset + Self.usualHeader)
  }

  /// - Returns: whether A can be compared so.
  private mutating func test(
    _ place: Int, _ a: Known, mask: UInt32, equals value: UInt32
  ) -> Bool {
    if a.byteCount == 0 { return false }
    let bits = UInt32(a.byteCount) * 8
    let all: UInt32 = bits == 32 ? .max : 1 << bits - 1
    // The last of the 4 bytes is A's last, but at the frame's start.
    let end = max(4, a.offset + UInt32(a.byteCount))
    let shift = 8 * (end - a.offset - UInt32(a.byteCount))
    // What A can never be is not tested.
    let mask = mask & a.mask & all
    guard value & ~mask == 0 else { return false }
    tests[place].offset = end - 4
    tests[place].mask = (mask << shift).bigEndian
    tests[place].value = (value << shift).bigEndian
    reach = max(reach, end)
    return true
  }

  private func lead(to place: Int, _ now: Known) {
    if !known[place].isReached {
      known[place] = now
      known[place].isReached = true
      return
    }
    if known[place].offset != now.offset || known[place].byteCount != now.byteCount
      || known[place].mask != now.mask
    {
      known[place].byteCount = 0
    }
    if !now.hasHeader { known[place].hasHeader = false }
  }
}
