import Testing

/// The other end of one TCP connection, by hand: it loses, repeats, acknowledges in part, closes its window and resets as
/// the test says.
final class RawPeer {
  struct Segment {
    var sequence: UInt32
    var acknowledgement: UInt32
    var flags: UInt8
    var payload: ArraySlice<UInt8>
    static let fin: UInt8 = 1
    static let syn: UInt8 = 2
    static let rst: UInt8 = 4
    static let ack: UInt8 = 16
  }

  static let mac: [UInt8] = [2, 0, 0, 0, 0, 1]
  static let address: UInt32 = 10 << 24 | 1
  nonisolated(unsafe) private static var nextPort: UInt16 = 20000

  private let bench: LwIPBench
  private let port: UInt16
  private var sequence: UInt32 = 1_000_000
  /// What it has got in order, and the number of the next byte that it wants.
  private(set) var received: [UInt8] = []
  private(set) var next: UInt32 = 0
  private var early: [UInt32: [UInt8]] = [:]
  private(set) var hasFinished = false
  private(set) var wasReset = false
  /// In bytes; scaled by 2^7 where the peer says so.
  var window = 1 << 20
  /// Says for each segment with data or FIN whether the wire loses it.
  var loses: (Segment) -> Bool = { _ in false }
  var answersARP = true

  init(_ bench: LwIPBench) throws {
    self.bench = bench
    Self.nextPort += 1
    port = Self.nextPort
    // Maximum segment size 1460, window scale 7.
    try send(RawPeer.Segment.syn, options: [2, 4, 5, 180, 3, 3, 7, 1])
    sequence &+= 1
    // The address first, perhaps.
    for _ in 0..<2 where next == 0 { try receive() }
    #expect(next != 0)
    try acknowledge()
  }

  /// Takes what the stack has sent.
  /// - Returns: segments of this connection that were not lost.
  @discardableResult
  func receive() throws -> Int { try receive(try bench.sent()) }

  func receive(_ frames: [[UInt8]]) throws -> Int {
    var count = 0
    for frame in frames {
      if frame[12] == 8 && frame[13] == 6 {
        if answersARP, frame[21] == 1 { try answerARP() }
        continue
      }
      guard let segment = parse(frame) else { continue }
      if segment.flags & Segment.rst != 0 {
        wasReset = true
        continue
      }
      if segment.flags & Segment.syn != 0 {
        next = segment.sequence &+ 1
        continue
      }
      let isEmpty = segment.payload.isEmpty && segment.flags & Segment.fin == 0
      if !isEmpty, loses(segment) { continue }
      count += isEmpty ? 0 : 1
      take(segment)
    }
    return count
  }

  private func take(_ segment: Segment) {
    if !segment.payload.isEmpty { early[segment.sequence] = Array(segment.payload) }
    var isGoingOn = true
    while isGoingOn {
      isGoingOn = false
      for (start, bytes) in early where Int32(bitPattern: start &- next) <= 0 {
        early[start] = nil
        let known = Int(next &- start)
        if known < bytes.count {
          received += bytes[known...]
          next &+= UInt32(bytes.count - known)
          isGoingOn = true
        }
      }
    }
    let end = segment.sequence &+ UInt32(segment.payload.count)
    if segment.flags & Segment.fin != 0 && end == next {
      next &+= 1
      hasFinished = true
    }
  }

  /// - Parameter short: bytes less than all that has come in order.
  func acknowledge(short: UInt32 = 0) throws { try send(Segment.ack, short: short) }
  func reset() throws { try send(Segment.rst | Segment.ack) }
  func finish() throws {
    try send(Segment.fin | Segment.ack)
    sequence &+= 1
  }
  func say(_ text: String) throws {
    try send(Segment.ack, payload: Array(text.utf8))
    sequence &+= UInt32(text.utf8.count)
  }

  func answerARP() throws {
    let head = LwIPBench.mac + Self.mac + [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]
    try bench.deliver(
      head + Self.mac + Self.bytes(Self.address) + LwIPBench.mac + Self.bytes(LwIPBench.address))
  }

  private func send(
    _ flags: UInt8, short: UInt32 = 0, options: [UInt8] = [], payload: [UInt8] = []
  ) throws {
    let header = 20 + options.count
    let shown = min(flags & Segment.syn != 0 ? window : window >> 7, 65535)
    var tcp = Self.bytes(port) + Self.bytes(LwIPBench.port) + Self.bytes(sequence)
    tcp += Self.bytes(next &- short) + [UInt8(header / 4) << 4, flags]
    tcp += Self.bytes(UInt16(shown)) + [0, 0, 0, 0] + options + payload
    var ip: [UInt8] = [0x45, 0] + Self.bytes(UInt16(20 + tcp.count)) + [0, 0, 0, 0, 64, 6, 0, 0]
    ip += Self.bytes(Self.address) + Self.bytes(LwIPBench.address)
    var sum: UInt32 = 0
    for at in stride(from: 0, to: 20, by: 2) { sum += UInt32(ip[at]) << 8 | UInt32(ip[at + 1]) }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    ip.replaceSubrange(10..<12, with: Self.bytes(~UInt16(sum)))
    try bench.deliver(LwIPBench.mac + Self.mac + [8, 0] + ip + tcp)
  }

  private func parse(_ frame: [UInt8]) -> Segment? {
    guard frame.count >= 54, frame[12] == 8, frame[13] == 0, frame[23] == 6 else { return nil }
    let tcp = 14 + Int(frame[14] & 15) * 4
    guard Self.number(frame, tcp + 2, 2) == UInt32(port) else { return nil }
    let end = 14 + Int(Self.number(frame, 16, 2))
    let start = tcp + Int(frame[tcp + 12] >> 4) * 4
    return Segment(
      sequence: Self.number(frame, tcp + 4, 4), acknowledgement: Self.number(frame, tcp + 8, 4),
      flags: frame[tcp + 13], payload: frame[start..<end])
  }

  private static func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
    withUnsafeBytes(of: value.bigEndian) { Array($0) }
  }

  private static func number(_ bytes: [UInt8], _ at: Int, _ count: Int) -> UInt32 {
    bytes[at..<at + count].reduce(0) { $0 << 8 | UInt32($1) }
  }
}
