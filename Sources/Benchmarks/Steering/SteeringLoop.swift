import Loops
import Steering

/// Headers of 64-byte frames are read and looked up in rules, as the host does with each packet that comes: 1024 frames
/// in no order, of which three in four hit a rule, each another one where there are as many.
struct SteeringLoop: PathLoop, ~Copyable {
  /// What the rules are like.
  enum Rules {
    /// As people write them: addresses, ports, protocols and networks, in six forms.
    case mixed
    /// Networks of every size from 8 to 32 bits: a list of whom not to hear.
    case networks
  }

  private static let frameCount = 1024
  private static let frameBytes = 64

  // Invariant: `frameCount` frames of `frameBytes` bytes each, until it is destroyed.
  private let frames: UnsafeMutableRawPointer
  private let classifier: Classifier?
  private let view: ClassifierView?
  private var next = 0
  private(set) var hits = 0

  /// - Parameter count: of rules; 0 to read headers alone.
  init(_ kind: Rules, count: Int) throws {
    var random = SteeringNumbers(state: UInt64(count) + 1)
    var set = RuleSet()
    var likely: [[UInt8]] = []
    for number in 0..<count {
      let (match, frame) =
        kind == .mixed ? Self.mixed(number, &random) : Self.network(number, &random)
      set.rules.append(
        Rule(name: "rule-\(number)", match: match, actions: RuleActions(.to(["instance"]))))
      likely.append(frame)
    }
    if count > 0 {
      let made = try Classifier(set)
      view = made.view
      classifier = consume made
    } else {
      view = nil
      classifier = nil
    }
    frames = .allocate(byteCount: Self.frameCount * Self.frameBytes, alignment: 64)
    for place in 0..<Self.frameCount {
      let stranger = Self.frame(random.next32(), random.next32(), 17, 9)
      let frame = place % 4 == 0 ? stranger : likely.randomElement(using: &random) ?? stranger
      frame.withUnsafeBytes { bytes in
        if let start = bytes.baseAddress {
          (frames + place * Self.frameBytes).copyMemory(from: start, byteCount: Self.frameBytes)
        }
      }
    }
  }

  deinit { frames.deallocate() }

  @inline(never)
  mutating func run(bursts: Int) throws -> Int {
    var next = next
    var hits = hits
    let view = view
    for _ in 0..<bursts * Self.burstSize {
      // Odd steps go through all of them.
      next = (next &* 5 &+ 277) & (Self.frameCount - 1)
      let frame = UnsafeRawPointer(frames + next &* Self.frameBytes)
      let packet = PacketHeader(frame: frame, byteCount: Self.frameBytes)
      if let view {
        if view.match(packet, frame: frame, byteCount: Self.frameBytes) >= 0 { hits &+= 1 }
      } else {
        hits &+= Int(packet.transport)
      }
    }
    self.next = next
    self.hits = hits
    return bursts * Self.burstSize
  }

  private static func mixed(
    _ number: Int, _ random: inout SteeringNumbers
  ) -> (RuleMatch, [UInt8]) {
    var match = RuleMatch()
    let source = random.next32()
    var destination = 0x0a00_0000 + UInt32(number)
    var transport: UInt8 = number % 2 == 0 ? 6 : 17
    var port = UInt16(1000 + number % 5000)
    let whole = { AddressPrefix(NetworkAddress(ipv4: $0), length: 32) }
    switch number % 6 {
    case 0: (match.destination, match.transport, port) = (whole(destination), 6, 443)
    case 1: match.source = prefix(source, 24)
    case 2: (match.destination, match.transport, transport) = (whole(destination), 17, 17)
    case 3:
      (match.source, match.transport, transport) = (prefix(source, 16), 6, 6)
      match.destinationPorts = 1024...65535
      return (match, frame(source, destination, 6, 5000))
    case 4: (match.source, match.transport) = (whole(source), transport)
    default:
      destination = 0x0b00_0000 + UInt32(number) << 8
      match.destination = prefix(destination, 24)
      return (match, frame(source, destination, transport, port))
    }
    if number % 6 != 1 { match.destinationPorts = port...port }
    return (match, frame(source, destination, transport, port))
  }

  private static func network(
    _ number: Int, _ random: inout SteeringNumbers
  ) -> (RuleMatch, [UInt8]) {
    var match = RuleMatch()
    let source = random.next32()
    match.source = prefix(source, UInt8(8 + number % 25))
    return (match, frame(source, 0x0a00_0001, 17, 53))
  }

  private static func prefix(_ address: UInt32, _ length: UInt8) -> AddressPrefix {
    AddressPrefix(
      NetworkAddress(ipv4: address & ~((UInt32.max >> UInt32(length - 1)) >> 1)), length: length)
  }

  private static func frame(
    _ source: UInt32, _ destination: UInt32, _ transport: UInt8, _ port: UInt16
  ) -> [UInt8] {
    func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
      withUnsafeBytes(of: value.bigEndian) { Array($0) }
    }
    let ethernet: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0]
    let network =
      [0x45, 0, 0, 50, 0, 1, 0, 0, 64, transport, 0, 0] + bytes(source) + bytes(destination)
    // A TCP header of 20 bytes, or a UDP header and payload.
    let rest = bytes(UInt16(40_000)) + bytes(port) + [0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0]
    let packet = ethernet + network + rest
    return packet + [UInt8](repeating: 0, count: frameBytes - packet.count)
  }
}

/// Xorshift64* (Vigna 2016): the same rules each time.
struct SteeringNumbers: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state ^= state >> 12
    state ^= state << 25
    state ^= state >> 27
    return state &* 0x2545_f491_4f6c_dd1d
  }

  mutating func next32() -> UInt32 { UInt32(truncatingIfNeeded: next() >> 32) }
}
