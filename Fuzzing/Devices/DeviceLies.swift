import Driver
import EmulatedPCI
import FuzzHarness

/// When a device's registers lie, and how: each lie is three bytes of the input, one after the other.
final class DeviceLies: Hostility {
  private var script = FuzzInput(UnsafeRawBufferPointer(start: nil, count: 0))
  /// Accesses until the next lie.
  private var honest = 0
  private var left = 0
  private var kind: UInt8 = 0

  func begin(_ script: FuzzInput) {
    self.script = script
    left = 0
    next()
  }

  private func next() {
    honest = script.isEmpty ? .max : Int(script.number(UInt8.self))
    if honest == .max { return }
    kind = script.number()
    let count = script.number(UInt8.self)
    // For ever, for some of them.
    left = count == 0xff ? .max : Int(count & 31) + 1
  }

  private func isDue() -> Bool {
    if honest > 0 {
      honest -= 1
      return false
    }
    if left == 0 {
      next()
      return false
    }
    left -= 1
    return true
  }

  func answer(_ access: RegisterAccess, honest: UInt64) -> UInt64 {
    if !isDue() { return honest }
    switch kind & 7 {
    case 0: return .max
    case 1: return 0
    case 2, 3: return honest ^ 1 << UInt64(kind >> 3)
    case 4: return honest &+ UInt64(kind >> 3)
    case 5: return UInt64(kind >> 3)
    case 6: return UInt64(kind >> 3) << 11
    // Only what was written is lost.
    default: return honest
    }
  }

  func accepts(_ access: RegisterAccess, _ value: UInt64) -> Bool { !isDue() || kind & 7 < 6 }
}

/// Time as a device would have it: each look at the clock is 20 ms later than the one before, so that a driver's limits
/// are met after a number of steps that can be counted.
enum DeviceTime {
  nonisolated(unsafe) private static var now: UInt64 = 0

  static func install() {
    Deadline.clock = {
      now += 20_000_000
      return now
    }
  }
}
