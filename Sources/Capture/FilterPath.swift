/// One way through a filter's tests by which packets are refused, as few comparisons: what must be so along it is at most two of
/// 8 bytes, what must not be so at most four. It is the way of a packet that was refused before: most others like it go the
/// same. Whatever packet it was, a packet that passes here is refused by the tests as well.
struct FilterPath: BitwiseCopyable {
  // Invariant: all bytes that are compared lie before `reach`.
  /// Bytes that a frame must have.
  private(set) var reach: UInt32 = 8
  private var first = Window()
  private var second = Window()
  /// None of these holds.
  private var others = (Test(), Test(), Test(), Test())
  private var otherCount = 0

  private typealias Test = FilterTests.Test

  /// Bits of 8 bytes that have one value.
  private struct Window: BitwiseCopyable {
    var offset = 0
    var mask: UInt64 = 0
    var value: UInt64 = 0

    @inline(__always)
    func difference(_ frame: UnsafeRawPointer) -> UInt64 {
      (frame.loadUnaligned(fromByteOffset: offset, as: UInt64.self) ^ value) & mask
    }

    /// Takes a test in; false where the bytes of both do not fit.
    mutating func add(_ test: Test) -> Bool {
      let skipped = test.mask.trailingZeroBitCount / 8
      let start = Int(test.offset) + skipped
      let (newMask, newValue) = (
        UInt64(test.mask >> UInt32(8 * skipped)), UInt64(test.value >> UInt32(8 * skipped))
      )
      if mask == 0 {
        (offset, mask, value) = (start, newMask, newValue)
        return true
      }
      let begin = min(offset, start)
      let (mine, its) = (8 * UInt64(offset - begin), 8 * UInt64(start - begin))
      guard mine <= UInt64(mask.leadingZeroBitCount), its <= UInt64(newMask.leadingZeroBitCount)
      else { return false }
      offset = begin
      mask = mask << mine | newMask << its
      value = value << mine | newValue << its
      return true
    }

    /// Whether what is so here makes a test fail.
    func excludes(_ test: Test) -> Bool {
      for byte in 0..<4 {
        let place = Int(test.offset) + byte - offset
        guard (0..<8).contains(place) else { continue }
        let bits = mask >> UInt64(8 * place) & UInt64(test.mask >> UInt32(8 * byte)) & 0xff
        let difference = value >> UInt64(8 * place) ^ UInt64(test.value >> UInt32(8 * byte))
        if difference & bits != 0 { return true }
      }
      return false
    }
  }

  private static let never = Test(value: 1)

  /// One that refuses nothing: a test of no bits holds always.
  init() {}

  /// Whether a frame goes this way.
  @inline(__always)
  func isWay(of frame: UnsafeRawPointer, _ present: UInt32) -> Bool {
    if present < reach || first.difference(frame) | second.difference(frame) != 0 { return false }
    if others.0.holds(frame) || others.1.holds(frame) { return false }
    return otherCount <= 2 || !(others.2.holds(frame) || others.3.holds(frame))
  }

  /// The way of a frame.
  /// - Parameters:
  ///   - tests: as ``FilterTests`` has them, from `start` on.
  ///   - reach: bytes that they look at; the frame has them.
  /// - Returns: nil where the tests do not refuse it, or where that takes more comparisons.
  init?(
    _ tests: UnsafeMutablePointer<FilterTests.Test>, from start: UInt16, reach: UInt32,
    of frame: UnsafeRawPointer
  ) {
    others = (Self.never, Self.never, Self.never, Self.never)
    var place = start
    while place < FilterTests.refused {
      let test = tests[Int(place)]
      let holds = test.holds(frame)
      if holds && test.mask != 0 && !first.add(test) && !second.add(test) { return nil }
      place = holds ? test.ifTrue : test.ifFalse
    }
    if place != FilterTests.refused { return nil }
    place = start
    while place < FilterTests.refused {
      let test = tests[Int(place)]
      let holds = test.holds(frame)
      if !holds && !first.excludes(test) && !second.excludes(test) {
        switch otherCount {
        case 0: others.0 = test
        case 1: others.1 = test
        case 2: others.2 = test
        case 3: others.3 = test
        default: return nil
        }
        otherCount += 1
      }
      place = holds ? test.ifTrue : test.ifFalse
    }
    self.reach = max(reach, UInt32(max(first.offset, second.offset) + 8))
  }
}
