import CLinux
import Glibc
import Histogram
import Wire

/// The far end of an emulated wire: a program that sends pings (RFC 792) with the time of sending in them, and takes the
/// answers. One thread.
final class EchoSender {
  struct Outcome {
    var sent = 0
    var answered = 0
    /// From the call that sends to the one that brings the answer, in nanoseconds.
    var latencies = Histogram<UInt64>(
      highestTrackableValue: 1_000_000_000, numberOfSignificantValueDigits: .three)
    var nanoseconds: UInt64 = 0
  }

  private let wire: DatagramWire
  private var frame: [UInt8]
  private var buffer = [UInt8](repeating: 0, count: 2048)
  /// Frames of an earlier run may still come.
  private var generation: UInt32 = 0

  private static let address: [UInt8] = [0x52, 0x54, 0, 0, 0, 1]
  private static let stamp = 42
  private static let frameBytes = 64

  /// - Parameters:
  ///   - target: the hardware address of the device.
  ///   - from, to: IPv4 addresses in host byte order.
  init(_ wire: DatagramWire, target: [UInt8], from: UInt32, to: UInt32) {
    self.wire = wire
    func word(_ value: UInt32) -> [UInt8] { [24, 16, 8, 0].map { UInt8(value >> $0 & 255) } }
    frame = target + Self.address + [8, 0]
    frame +=
      [0x45, 0, 0, UInt8(Self.frameBytes - 14), 0, 0, 0, 0, 64, 1, 0, 0] + word(from) + word(to)
    frame += [8, 0, 0, 0, 0, 0, 0, 0]
    frame += [UInt8](repeating: 0, count: Self.frameBytes - frame.count)
    Self.seal(&frame, 14..<34, at: 24)
    // The kernel may wake a thread 50 us late unless it is told otherwise.
    _ = linux_prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
  }

  /// Sends at a rate.
  /// - Parameter rate: packets a second; 0 for none.
  func send(rate: Double, milliseconds: Int) -> Outcome {
    var outcome = begin()
    let start = monotonic_nanoseconds()
    let end = start + UInt64(milliseconds) * 1_000_000
    let interval = rate > 0 ? UInt64(1e9 / rate) : UInt64.max / 4
    var due = start &+ interval
    while true {
      let now = monotonic_nanoseconds()
      if now >= end { break }
      if now >= due {
        ping(&outcome)
        // What this program was late for is not made up for in a burst.
        due = max(due + interval, now - min(now, interval))
      }
      take(&outcome)
      wait(until: min(due, end))
    }
    outcome.nanoseconds = monotonic_nanoseconds() - start
    let patience = monotonic_nanoseconds() + 20_000_000
    while outcome.answered < outcome.sent, monotonic_nanoseconds() < patience {
      wait(until: patience)
      take(&outcome)
    }
    return outcome
  }

  /// Keeps so many on the way.
  func flood(outstanding: Int, milliseconds: Int) -> Outcome {
    var outcome = begin()
    let start = monotonic_nanoseconds()
    let end = start + UInt64(milliseconds) * 1_000_000
    var lost = 0
    while monotonic_nanoseconds() < end {
      while outcome.sent - outcome.answered - lost < outstanding { ping(&outcome) }
      let before = outcome.answered
      wait(until: monotonic_nanoseconds() + 5_000_000)
      take(&outcome)
      if outcome.answered == before { lost = outcome.sent - outcome.answered }
    }
    outcome.nanoseconds = monotonic_nanoseconds() - start
    return outcome
  }

  private func begin() -> Outcome {
    generation &+= 1
    for index in 0..<4 { frame[38 + index] = UInt8(generation >> UInt32(24 - 8 * index) & 255) }
    return Outcome()
  }

  private func ping(_ outcome: inout Outcome) {
    let now = monotonic_nanoseconds()
    frame.withUnsafeMutableBytes {
      $0.storeBytes(of: now, toByteOffset: Self.stamp, as: UInt64.self)
    }
    Self.seal(&frame, 34..<Self.frameBytes, at: 36)
    if Glibc.send(wire.descriptor, frame, frame.count, Int32(MSG_DONTWAIT)) > 0 {
      outcome.sent += 1
    }
  }

  private func take(_ outcome: inout Outcome) {
    while true {
      let count = recv(wire.descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if count <= 0 { return }
      if count >= 42, buffer[12] == 8, buffer[13] == 6 {
        answerARP()
      } else if count >= Self.frameBytes, buffer[23] == 1, buffer[34] == 0,
        buffer[38..<42] == frame[38..<42]
      {
        let sent = buffer.withUnsafeBytes {
          $0.loadUnaligned(fromByteOffset: Self.stamp, as: UInt64.self)
        }
        outcome.answered += 1
        let now = monotonic_nanoseconds()
        outcome.latencies.record(min(now - min(now, sent), 999_999_999))
      }
    }
  }

  /// RFC 826: who asks for the address that pings come from is told.
  private func answerARP() {
    guard buffer[21] == 1, buffer[38..<42] == frame[26..<30] else { return }
    var answer = Array(buffer[6..<12]) + Self.address + Array(buffer[12..<21]) + [2]
    answer += Self.address + Array(buffer[38..<42]) + Array(buffer[22..<32])
    answer += [UInt8](repeating: 0, count: 18)
    _ = Glibc.send(wire.descriptor, answer, answer.count, Int32(MSG_DONTWAIT))
  }

  private func wait(until due: UInt64) {
    let now = monotonic_nanoseconds()
    if now >= due { return }
    _ = linux_wait_readable(wire.descriptor, Int(min(due - now, 999_999_999)))
  }

  /// The Internet checksum (RFC 1071) of a range, put into it.
  private static func seal(_ bytes: inout [UInt8], _ range: Range<Int>, at place: Int) {
    bytes[place] = 0
    bytes[place + 1] = 0
    var sum: UInt32 = 0
    for index in stride(from: range.lowerBound, to: range.upperBound, by: 2) {
      sum += UInt32(bytes[index]) << 8 | UInt32(bytes[index + 1])
    }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    bytes[place] = UInt8(~sum >> 8 & 255)
    bytes[place + 1] = UInt8(~sum & 255)
  }
}
