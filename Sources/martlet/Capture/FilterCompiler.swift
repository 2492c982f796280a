import CPcap
import Capture

/// libpcap's compiler of filter expressions (pcap-filter(7)), for Ethernet frames.
enum FilterCompiler {
  /// - Parameter expression: empty for all packets.
  /// - Throws: what libpcap finds wrong with it.
  static func compile(_ expression: String) throws -> [FilterInstruction] {
    guard let handle = pcap_open_dead(DLT_EN10MB, 262_144) else {
      throw CommandFailure(code: 1, text: "libpcap cannot be used: there is no memory")
    }
    defer { pcap_close(handle) }
    var program = bpf_program()
    guard pcap_compile(handle, &program, expression, 1, PCAP_NETMASK_UNKNOWN) == 0 else {
      throw CommandFailure(
        code: 2, text: "the filter '\(expression)' is none: \(String(cString: pcap_geterr(handle)))"
      )
    }
    defer { pcap_freecode(&program) }
    let instructions = (0..<Int(program.bf_len)).map {
      let instruction = program.bf_insns[$0]
      return FilterInstruction(
        code: instruction.code, jumpTrue: instruction.jt, jumpFalse: instruction.jf,
        operand: instruction.k)
    }
    do {
      try FilterProgram.check(instructions)
    } catch {
      throw CommandFailure(code: 2, text: "the filter '\(expression)' cannot be used: \(error)")
    }
    return instructions
  }
}
