import CLinux
import Supervisor

/// A dpdk-testpmd that is told what to do at its prompt. It burns its core only between ``start(_:firstBursts:)`` and
/// ``stop()``.
final class TestPMD {
  enum Mode: String {
    case receive = "rxonly"
    case transmit = "txonly"
    case echo = "io"
  }

  let process: LineProcess

  init(_ process: LineProcess) throws {
    self.process = process
    try waitForPrompt(withinMilliseconds: 20_000)
  }

  /// What fits one of its buffers.
  private static let pieceBytes = 2048

  /// - Parameter bytes: of each packet that it makes.
  func set(burst: Int, bytes: Int) throws {
    process.send("set burst \(burst)")
    let pieces = stride(from: 0, to: bytes, by: Self.pieceBytes).map {
      "\(min(Self.pieceBytes, bytes - $0))"
    }
    process.send("set txpkts \(pieces.joined(separator: ","))")
    try waitForPrompt()
  }

  /// - Parameter firstBursts: sent before it echoes; 0 for none.
  func start(_ mode: Mode, firstBursts: Int = 0) throws {
    process.send("set fwd \(mode.rawValue)")
    process.send(firstBursts > 0 ? "start tx_first \(firstBursts)" : "start")
    try waitForPrompt()
  }

  func stop() throws {
    process.send("stop")
    try waitForPrompt()
  }

  /// What it counts on its port.
  struct Counters {
    var received: Double
    var sent: Double
    var nanoseconds: UInt64
    var cpuNanoseconds: UInt64
  }

  func readCounters() throws -> Counters {
    process.send("show port stats 0")
    func packets(_ prefix: String) throws -> Double {
      let line = try process.line { $0.contains(prefix) }
      let words = line.split(separator: " ")
      guard let at = words.firstIndex(of: Substring(prefix)), at + 1 < words.count,
        let value = Double(words[at + 1])
      else { throw SupervisorError.input("dpdk-testpmd printed \(line)") }
      return value
    }
    let received = try packets("RX-packets:")
    let now = monotonic_nanoseconds()
    let sent = try packets("TX-packets:")
    return Counters(
      received: received, sent: sent, nanoseconds: now, cpuNanoseconds: process.cpuNanoseconds)
  }

  /// A command without effect whose answer shows that all before it have been carried out.
  private func waitForPrompt(withinMilliseconds limit: Int = 5000) throws {
    process.send("show port info 9999")
    _ = try process.line(withinMilliseconds: limit) { $0.contains("Invalid port 9999") }
  }
}
