import Memory
import Testing

@testable import Capture

@Suite struct FilterMachineTests {
  static let expressions = [
    "", "ip", "ip6", "arp", "tcp", "udp port 53", "tcp port 80", "host 10.0.0.1",
    "src host 10.0.0.2",
    "net 10.0.0.0/30", "not port 22", "ip6 host 2001:db8::1", "port 53 or port 80", "greater 60",
    "less 50", "ether[0] & 1 != 0", "ip[6:2] & 0x1fff = 0", "tcp[tcpflags] & tcp-syn != 0",
    "icmp or icmp6", "vlan 5 and ip", "portrange 20-60", "ether src 02:00:00:00:00:01",
    "len - 14 > 20", "ip[2:2] * 2 > 100", "udp[4:2] % 3 = 1", "ether[100] = 86", "sctp",
    "(tcp or udp) and dst net 192.0.2.0/24 and not src port 22", "ip[0] / 2 > 30",
    "ip[8] << 2 = 256",
    "ip proto 17 and ip[ip[0] & 0xf] = 0", "mpls", "pppoes", "ether multicast", "ip multicast",
  ]

  /// What people type gives the same as libpcap, packet by packet.
  @Test(arguments: expressions)
  func compiledFiltersDecideAsLibpcapDoes(expression: String) throws {
    let program = try #require(Libpcap.compile(expression))
    try FilterProgram.check(program)
    var machine = FilterMachine()
    try machine.load(program)
    var numbers = Numbers(state: 7)
    for _ in 0..<3000 {
      let frame = [UInt8].frame(&numbers)
      let result = frame.withUnsafeBytes { machine.run($0) }
      #expect(result == Libpcap.run(program, frame), "\(expression) of \(frame)")
    }
  }

  /// What most people type is decided by the quick tests, where it takes nothing.
  @Test(arguments: ["host 192.0.2.9", "tcp port 80", "udp port 99", "ip6", "net 198.51.100.0/24"])
  func mostPacketsAreRefusedByTheQuickTests(expression: String) throws {
    var machine = FilterMachine()
    try machine.load(try #require(Libpcap.compile(expression)))
    let frame: [UInt8] =
      [UInt8](repeating: 2, count: 12)
      + [8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 7]
      + [UInt8](repeating: 0, count: 22)
    let isRefused = frame.withUnsafeBytes {
      FilterTests.refuse(
        machine.tests.tests, machine.tests.first, reach: machine.tests.reach, $0.baseAddress!,
        UInt32($0.count))
    }
    #expect(isRefused)
    // With options, the header is longer than is usual: the filter itself has to look.
    var longer = frame
    longer[14] = 0x46
    #expect(longer.withUnsafeBytes { machine.run($0) } == 0)
  }

  /// The way of a packet that was refused is one of few comparisons, and refuses nothing that the tests do not.
  @Test(arguments: [
    "udp port 99", "tcp port 80", "host 192.0.2.9", "ip6", "not ip",
    "net 198.51.100.0/24", "arp", "vlan 5 and ip", "host 10.0.0.9 and tcp port 22",
  ])
  func theWayOfARefusedPacketIsThatOfOthersLikeIt(expression: String) throws {
    var machine = FilterMachine()
    try machine.load(try #require(Libpcap.compile(expression)))
    let frame: [UInt8] =
      [UInt8](repeating: 2, count: 12)
      + [8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 54, 0, 7]
      + [UInt8](repeating: 0, count: 22)
    func refuses(_ frame: [UInt8]) -> Bool {
      frame.withUnsafeBytes {
        FilterTests.refuse(
          machine.tests.tests, machine.tests.first, reach: machine.tests.reach, $0.baseAddress!,
          UInt32($0.count))
      }
    }
    let path = try #require(
      frame.withUnsafeBytes {
        FilterPath(
          machine.tests.tests, from: machine.tests.first, reach: machine.tests.reach,
          of: $0.baseAddress!)
      })
    // What the filter takes has no way.
    let isTaken = frame.withUnsafeBytes {
      var machine = FilterMachine()
      guard (try? machine.load([.accept(1)])) != nil else { return false }
      return FilterPath(
        machine.tests.tests, from: machine.tests.first, reach: machine.tests.reach,
        of: $0.baseAddress!) == nil
    }
    #expect(isTaken)
    func isWay(_ frame: [UInt8]) -> Bool {
      frame.withUnsafeBytes { path.isWay(of: $0.baseAddress!, UInt32($0.count)) }
    }
    #expect(isWay(frame) && !isWay(Array(frame[..<13])))
    var numbers = Numbers(state: 3)
    var ways = 0
    for _ in 0..<5000 {
      var other = frame
      for _ in 0..<Int.random(in: 1...3, using: &numbers) {
        // Addresses, ports and what is asked for are near each other.
        other[Int.random(in: 12..<38, using: &numbers)] ^=
          1
          << UInt8.random(
            in: 0..<8, using: &numbers)
      }
      if isWay(other) {
        ways += 1
        #expect(refuses(other), "\(other)")
      }
    }
    #expect(ways > 100)
  }

  /// Packets of one kind after the other, as they come: none is refused that libpcap takes.
  @Test(arguments: expressions)
  func whatIsSkippedInABurstIsRefused(expression: String) throws {
    let program = try #require(Libpcap.compile(expression))
    var machine = FilterMachine()
    try machine.load(program)
    var numbers = Numbers(state: 5)
    var frames: [[UInt8]] = []
    for _ in 0..<400 {
      let frame = [UInt8].frame(&numbers)
      for _ in 0..<Int.random(in: 1...20, using: &numbers) {
        var other = frame
        if let place = other.indices.randomElement(using: &numbers), Bool.random(using: &numbers) {
          other[place] = UInt8.random(in: 0...255, using: &numbers)
        }
        frames.append(other)
      }
    }
    for frame in frames {
      frame.withUnsafeBytes { bytes in
        var slot = Descriptor(segment: 0, length: UInt32(bytes.count))
        let next = machine.tests.firstNotRefused(
          &slot, 0, 1, bytes.baseAddress!, UInt64(bytes.count))
        if next == 1 { #expect(Libpcap.run(program, frame) == 0, "\(expression) of \(frame)") }
      }
    }
  }

  /// Every program that the check lets through, however it was made, ends and gives what libpcap gives.
  @Test func programsAtRandomDecideAsLibpcapDoes() throws {
    var numbers = Numbers(state: 11)
    var machine = FilterMachine()
    var accepted = 0
    for _ in 0..<40_000 {
      let program = Self.program(&numbers)
      guard (try? FilterProgram.check(program)) != nil else { continue }
      accepted += 1
      try machine.load(program)
      for _ in 0..<4 {
        let frame = [UInt8].frame(&numbers)
        let result = frame.withUnsafeBytes { machine.run($0) }
        try #require(result == Libpcap.run(program, frame), "\(program) of \(frame)")
      }
    }
    #expect(accepted > 400)
  }

  /// Instructions that may be none, with operands that may be too large.
  static func program(_ numbers: inout Numbers) -> [FilterInstruction] {
    let count = Int.random(in: 1...10, using: &numbers)
    let codes: [UInt16] = [
      0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x14, 0x15, 0x16, 0x1c, 0x1d, 0x20,
      0x24,
      0x25, 0x28, 0x2c, 0x2d, 0x30, 0x34, 0x35, 0x3c, 0x3d, 0x40, 0x44, 0x45, 0x48, 0x4c, 0x4d,
      0x50,
      0x54, 0x5c, 0x60, 0x61, 0x64, 0x6c, 0x74, 0x7c, 0x80, 0x81, 0x84, 0x87, 0x94, 0x9c, 0xa4,
      0xac,
      0xb1,
    ]
    var program = (0..<count).map { _ in
      FilterInstruction(
        code: codes.randomElement(using: &numbers) ?? 0,
        jumpTrue: UInt8.random(in: 0...3, using: &numbers),
        jumpFalse: UInt8.random(in: 0...3, using: &numbers),
        operand: Bool.random(using: &numbers)
          ? UInt32.random(in: 0...15, using: &numbers)
          : Bool.random(using: &numbers)
            ? UInt32.random(in: 0...70, using: &numbers)
            : UInt32.random(in: 0...UInt32.max, using: &numbers))
    }
    program.append(FilterInstruction(code: Bool.random(using: &numbers) ? 0x06 : 0x16, operand: 96))
    return program
  }

  static let hostile: [(String, [FilterInstruction], FilterError)] = [
    ("empty", [], .length(0)),
    ("too long", .init(repeating: .accept(1), count: 4097), .length(4097)),
    ("no return", [.init(code: 0x30)], .noReturn),
    ("jump behind the end", [.init(code: 0x05, operand: 1), .accept(0)], .jump(at: 0)),
    ("jump backwards", [.init(code: 0x05, operand: .max), .accept(0)], .jump(at: 0)),
    (
      "test behind the end", [.init(code: 0x15, jumpTrue: 0, jumpFalse: 1), .accept(0)],
      .jump(at: 0)
    ),
    ("division by 0", [.init(code: 0x34), .accept(0)], .division(at: 0)),
    ("remainder by 0", [.init(code: 0x94), .accept(0)], .division(at: 0)),
    ("shift", [.init(code: 0x64, operand: 32), .accept(0)], .shift(at: 0)),
    ("memory", [.init(code: 0x02, operand: 16), .accept(0)], .memory(at: 0)),
    (
      "read before it is written", [.init(code: 0x60, operand: 3), .accept(0)],
      .unwrittenMemory(at: 0)
    ),
    (
      "written on one way only",
      [
        .init(code: 0x15, jumpTrue: 0, jumpFalse: 1), .init(code: 0x02), .init(code: 0x60),
        .accept(0),
      ],
      .unwrittenMemory(at: 2)
    ),
    ("no instruction", [.init(code: 0x99), .accept(0)], .unknownCode(0x99, at: 0)),
    ("code of 16 bits", [.init(code: 0x106), .accept(0)], .unknownCode(0x106, at: 0)),
  ]

  @Test(arguments: hostile.indices)
  func hostileProgramsAreRefused(index: Int) {
    let (name, program, error) = Self.hostile[index]
    #expect(throws: error, "\(name)") { try FilterProgram.check(program) }
    // A machine that was given one takes nothing.
    var machine = FilterMachine()
    #expect(throws: error) { try machine.load(program) }
    #expect([UInt8](repeating: 0, count: 64).withUnsafeBytes { machine.run($0) } == 0)
  }

  /// The longest program there may be runs to its end.
  @Test func theLongestProgramRuns() throws {
    var machine = FilterMachine()
    let program =
      [FilterInstruction](repeating: .init(code: 0x04, operand: 1), count: 4095)
      + [.init(code: 0x16)]
    try machine.load(program)
    #expect([UInt8](repeating: 0, count: 14).withUnsafeBytes { machine.run($0) } == 4095)
  }
}
