import CPcap
import Capture

/// libpcap's compiler and its own machine, to compare with.
enum Libpcap {
  /// - Returns: nil where the expression is none.
  static func compile(_ expression: String) -> [FilterInstruction]? {
    guard let handle = pcap_open_dead(DLT_EN10MB, 262_144) else { return nil }
    defer { pcap_close(handle) }
    var program = bpf_program()
    guard pcap_compile(handle, &program, expression, 1, PCAP_NETMASK_UNKNOWN) == 0 else {
      return nil
    }
    defer { pcap_freecode(&program) }
    return (0..<Int(program.bf_len)).map {
      let instruction = program.bf_insns[$0]
      return FilterInstruction(
        code: instruction.code, jumpTrue: instruction.jt, jumpFalse: instruction.jf,
        operand: instruction.k)
    }
  }

  static func run(_ program: [FilterInstruction], _ packet: [UInt8]) -> UInt32 {
    let instructions = program.map {
      bpf_insn(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.operand)
    }
    return bpf_filter(instructions, packet, UInt32(packet.count), UInt32(packet.count))
  }
}

/// The same numbers in each run.
struct Numbers: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state ^ state >> 29
  }
}

extension [UInt8] {
  /// An Ethernet frame of IPv4 or IPv6 with UDP or TCP, some of it at random.
  static func frame(_ numbers: inout Numbers) -> [UInt8] {
    var frame = (0..<12).map { _ in UInt8.random(in: 0...255, using: &numbers) }
    let protocols: [UInt8] = [6, 17, 1, 58, 132]
    let transport = protocols.randomElement(using: &numbers) ?? 6
    if Bool.random(using: &numbers) {
      frame += [
        8, 0, 0x45, 0, 0, 60, 0, 0, Bool.random(using: &numbers) ? 0x20 : 0, 0, 64, transport,
      ]
      frame += [0, 0, 10, 0, 0, UInt8.random(in: 1...3, using: &numbers), 192, 0, 2, 1]
    } else {
      frame += [0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, transport, 64]
      frame += [0x20, 1, 0xd, 0xb8] + [UInt8](repeating: 0, count: 11) + [1]
      frame += [0x20, 1, 0xd, 0xb8] + [UInt8](repeating: 0, count: 11) + [2]
    }
    let ports: [UInt8] = [53, 80, 22]
    frame += [
      0, ports.randomElement(using: &numbers) ?? 1, 0, ports.randomElement(using: &numbers) ?? 1,
    ]
    frame += (0..<Int.random(in: 0...40, using: &numbers)).map { UInt8(truncatingIfNeeded: $0) }
    return Array(frame.prefix(Int.random(in: 0...frame.count, using: &numbers) | 32))
  }
}
