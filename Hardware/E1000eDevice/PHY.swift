/// The integrated PHY as MDIC reaches it (82574 datasheet, 10.2.2 and chapter 10.3): IEEE 802.3 clause 22 registers of
/// page 0, and auto-negotiation that takes a number of steps.
struct PHY {
  static let address = 1
  private static let control = 0
  private static let status = 1
  private static let pageSelect = 22

  /// Whether a cable with a partner is there.
  var hasCable = true
  /// Steps until the link is up; 0 when negotiation is done.
  private(set) var stepsToLink = 0
  private let negotiationSteps: Int
  private var page: UInt16 = 0
  private var registers = [UInt16](repeating: 0, count: 32)

  init(negotiationSteps: Int) {
    self.negotiationSteps = negotiationSteps
    powerOn()
  }

  private mutating func powerOn() {
    registers = Array(repeating: 0, count: 32)
    page = 0
    // Auto-negotiation, full duplex, 1000 Mb/s.
    registers[Self.control] = 0x1140
    registers[2] = 0x0141
    registers[3] = 0x0cb1
    registers[4] = 0x0de1
    registers[9] = 0x0300
    registers[15] = 0x3000
  }

  var linkIsUp: Bool { hasCable && stepsToLink == 0 && registers[Self.control] & 0x0800 == 0 }

  mutating func reset() {
    powerOn()
    stepsToLink = negotiationSteps
  }

  /// - Returns: whether negotiation is still under way.
  mutating func step() -> Bool {
    guard stepsToLink > 0 && hasCable else { return false }
    stepsToLink -= 1
    return true
  }

  mutating func setCable(_ present: Bool) {
    if present && !hasCable { stepsToLink = negotiationSteps }
    hasCable = present
  }

  func read(_ register: Int) -> UInt16 {
    if register == Self.pageSelect { return page }
    if page != 0 { return 0 }
    switch register {
    case Self.status: return 0x7949 | (linkIsUp ? 0x0024 : 0)
    case 5: return linkIsUp ? 0xcde1 : 0
    case 10: return linkIsUp ? 0x7c00 : 0
    // Copper status: 1000 Mb/s, full duplex, resolved, link.
    case 17: return linkIsUp ? 0xac00 : 0x8000
    default: return registers[register]
    }
  }

  mutating func write(_ register: Int, _ value: UInt16) {
    if register == Self.pageSelect {
      page = value
    } else if page == 0 {
      switch register {
      case Self.control:
        if value & 0x8000 != 0 {
          reset()
        } else {
          if value & 0x0200 != 0 { stepsToLink = negotiationSteps }
          // Reset and restart clear themselves.
          registers[Self.control] = value & ~0x8200
        }
      case Self.status, 2, 3, 5, 10, 15, 17: break
      default: registers[register] = value
      }
    }
  }
}
