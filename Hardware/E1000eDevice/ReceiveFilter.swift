/// Which frames a port lets through (82574 datasheet, 7.1.1 and 10.2.5): exact addresses, the multicast table, modes.
struct ReceiveFilter {
  /// All of the port's, each at a fourth of its offset.
  let registers: [UInt32]
  private var rctl: UInt32 { registers[Register.rctl / 4] }

  init(registers: [UInt32]) { self.registers = registers }

  enum Verdict { case refused, exact, inexact }

  func verdict(_ frame: [UInt8], vlanType: UInt32) -> Verdict {
    if rctl & Rctl.vlanFilter != 0 && UInt32(frame[12]) << 8 | UInt32(frame[13]) == vlanType,
      frame.count >= 16
    {
      let tag = Int(frame[14] & 0x0f) << 8 | Int(frame[15])
      if registers[Register.vfta / 4 + tag / 32] >> UInt32(tag % 32) & 1 == 0 { return .refused }
    }
    if isExact(frame) { return .exact }
    if frame[0..<6].allSatisfy({ $0 == 0xff }) {
      return rctl & Rctl.acceptBroadcast != 0 || isPromiscuousMulticast ? .exact : .refused
    }
    if frame[0] & 1 == 0 {
      return rctl & Rctl.unicastPromiscuous != 0 ? .exact : .refused
    }
    if isPromiscuousMulticast { return .exact }
    let bit = multicastBit(frame)
    return registers[Register.mta / 4 + bit / 32] >> UInt32(bit % 32) & 1 != 0 ? .inexact : .refused
  }

  private var isPromiscuousMulticast: Bool { rctl & Rctl.multicastPromiscuous != 0 }

  private func isExact(_ frame: [UInt8]) -> Bool {
    // RAL and RAH, 16 pairs.
    for index in 0..<16 {
      let low = registers[Register.ral / 4 + 2 * index]
      let high = registers[Register.rah / 4 + 2 * index]
      if high >> 31 == 0 { continue }
      // ASEL: destination, or source; others are reserved.
      let at = high >> 16 & 3 == 1 ? 6 : 0
      let address = (0..<6).reduce(0 as UInt64) { $0 | UInt64(frame[at + $1]) << UInt64(8 * $1) }
      if address == UInt64(low) | UInt64(high & 0xffff) << 32 { return true }
    }
    return false
  }

  /// MO chooses which 12 bits of the address count.
  private func multicastBit(_ frame: [UInt8]) -> Int {
    let last = Int(frame[4]) | Int(frame[5]) << 8
    return last >> [4, 3, 2, 0][Int(rctl >> 12 & 3)] & 0xfff
  }
}
