import CPcap
import Capture
import FuzzHarness

/// The codes that Linux allows, and some that it does not.
private let codes: [UInt16] = [
  0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x14, 0x15, 0x16, 0x1c, 0x1d,
  0x20, 0x24, 0x25, 0x28, 0x2c, 0x2d, 0x30, 0x34, 0x35, 0x3c, 0x3d, 0x40, 0x44, 0x45,
  0x48, 0x4c, 0x4d, 0x50, 0x54, 0x5c, 0x60, 0x61, 0x64, 0x6c, 0x74, 0x7c, 0x80, 0x81,
  0x84, 0x87, 0x94, 0x9c, 0xa4, 0xac, 0xb1, 0x08, 0xff, 0x115,
]

/// A packet filter and a packet: what the check lets through ends, and decides as libpcap's own machine does.
let filters = FuzzTarget("filters") { input in
  var input = input
  let count = 1 + Int(input.number(UInt8.self)) % 48
  var program: [FilterInstruction] = []
  for _ in 0..<count {
    let kind = Int(input.number(UInt8.self))
    let jumps = input.number(UInt8.self)
    // Small operands, mostly: places in a packet, memory words, jumps.
    let isLarge = jumps & 0x80 != 0
    program.append(
      FilterInstruction(
        code: codes[kind % codes.count], jumpTrue: jumps & 7, jumpFalse: jumps >> 3 & 7,
        operand: isLarge ? input.number() : UInt32(input.number(UInt8.self))))
  }
  program.append(FilterInstruction(code: 0x16))
  do throws(FilterError) {
    try FilterProgram.check(program)
  } catch {
    require(!error.description.isEmpty, "no reason")
    return
  }
  let instructions = program.map {
    bpf_insn(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.operand)
  }
  require(
    bpf_validate(instructions, Int32(instructions.count)) != 0, "libpcap refuses \(program)")
  var machine = FilterMachine()
  require((try? machine.load(program)) != nil, "the machine refuses \(program)")
  let packet = input.bytes
  let result = packet.withUnsafeBytes { machine.run($0) }
  let other = bpf_filter(instructions, packet, UInt32(packet.count), UInt32(packet.count))
  require(result == other, "\(result), libpcap \(other): \(program) of \(packet)")
}
