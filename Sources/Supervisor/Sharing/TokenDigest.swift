/// SHA-256 (FIPS 180-4) of an instance's token, so that a policy file holds no secret. Tokens are random, of 128 bits or
/// more: a digest without salt cannot be turned round.
enum TokenDigest {
  /// Whether `token` has this digest. Takes as long for every token of its length.
  static func matches(_ token: [UInt8], _ digest: [UInt8]) -> Bool {
    let own = of(token)
    guard own.count == digest.count else { return false }
    return zip(own, digest).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
  }

  static func of(_ bytes: [UInt8]) -> [UInt8] {
    // Section 5.1.1: a one bit, zeros, and the length in bits, up to a multiple of 64 bytes.
    var message = bytes + [0x80]
    while message.count % 64 != 56 { message.append(0) }
    let bits = UInt64(bytes.count) * 8
    for shift in stride(from: UInt64(56), through: 0, by: -8) {
      message.append(UInt8(truncatingIfNeeded: bits >> shift))
    }
    var state = initialState
    for start in stride(from: 0, to: message.count, by: 64) {
      absorb(message[start..<start + 64], into: &state)
    }
    return state.flatMap { word in [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: word >> $0) } }
  }

  /// Section 6.2.2.
  private static func absorb(_ block: ArraySlice<UInt8>, into state: inout [UInt32]) {
    var schedule = stride(from: block.startIndex, to: block.endIndex, by: 4).map { at in
      block[at..<at + 4].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    }
    for index in 16..<64 {
      let (w2, w7) = (schedule[index - 2], schedule[index - 7])
      let (w15, w16) = (schedule[index - 15], schedule[index - 16])
      let small0 = rotated(w15, 7) ^ rotated(w15, 18) ^ w15 >> 3
      let small1 = rotated(w2, 17) ^ rotated(w2, 19) ^ w2 >> 10
      schedule.append(small1 &+ w7 &+ small0 &+ w16)
    }
    var v = state
    for index in 0..<64 {
      let big1 = rotated(v[4], 6) ^ rotated(v[4], 11) ^ rotated(v[4], 25)
      let choice = v[4] & v[5] ^ ~v[4] & v[6]
      let first = v[7] &+ big1 &+ choice &+ roundConstants[index] &+ schedule[index]
      let big0 = rotated(v[0], 2) ^ rotated(v[0], 13) ^ rotated(v[0], 22)
      let majority = v[0] & v[1] ^ v[0] & v[2] ^ v[1] & v[2]
      let next = first &+ big0 &+ majority
      v = [next, v[0], v[1], v[2], v[3] &+ first, v[4], v[5], v[6]]
    }
    for index in 0..<8 { state[index] = state[index] &+ v[index] }
  }

  private static func rotated(_ word: UInt32, _ count: UInt32) -> UInt32 {
    word >> count | word << (32 - count)
  }

  private static let primes: [UInt64] = (2...311).filter { number in
    !(2..<number).contains { number % $0 == 0 }
  }.map { UInt64($0) }

  /// Sections 4.2.2 and 5.3.3: the first 32 bits behind the point of the roots of primes.
  private static let roundConstants = primes.map { fraction($0, power: 3) }
  private static let initialState = primes.prefix(8).map { fraction($0, power: 2) }

  /// The root in units of 2^-32 is the largest number whose power is not above prime × 2^(32 × power).
  private static func fraction(_ prime: UInt64, power: Int) -> UInt32 {
    var root: UInt128 = 0
    for bit in stride(from: 37, through: 0, by: -1) {
      let tried = root | 1 << UInt128(bit)
      let raised = (1..<power).reduce(tried) { product, _ in product * tried }
      if raised <= UInt128(prime) << UInt128(32 * power) { root = tried }
    }
    return UInt32(truncatingIfNeeded: root)
  }
}
