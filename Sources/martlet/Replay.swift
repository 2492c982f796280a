import ArgumentParser
import Driver
import Glibc
import Trace

/// `martlet replay`: a recorded run, without its device.
struct Replay: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Repeat a recorded run without its device, and compare what the driver does.",
    discussion: """
      Takes a file that `martlet run --record` has written, and calls the driver as it was called then, on memory and \
      registers that answer as the device did. What the driver does to registers and what it hands out has to be the \
      same. In a test: `try DriverReplay<VirtioNet>.run(Trace(text: text))`.

      Exit codes: 0 the driver did the same, 1 it did not, with the first line that differs, 2 there is no such trace \
      or no such driver.
      """)

  @Argument(help: "The trace.")
  var file: String

  func run() throws {
    try reporting {
      let text = try text()
      let trace: Trace
      do throws(TraceError) {
        trace = try Trace(text: text)
      } catch {
        throw CommandFailure(code: 2, text: "\(file): \(error)")
      }
      guard let driver = trace.driver else {
        throw CommandFailure(code: 2, text: "\(file): \(TraceError.noDriver)")
      }
      var visitor = Visitor(trace: trace, driver: driver)
      do throws(ReplayError) {
        try visitDrivers(&visitor)
      } catch {
        if case .trace = error { throw CommandFailure(code: 2, text: "\(file): \(error)") }
        throw CommandFailure(code: 1, text: "\(file): \(error)")
      }
      guard let calls = visitor.calls else {
        throw CommandFailure(
          code: 2,
          text:
            "\(file) is a run of \(driver), which this program does not have: in a test of its package, DriverReplay replays it"
        )
      }
      writeLine("\(file): \(driver) did the same in all of \(calls) calls", to: 1)
    }
  }

  private func text() throws -> String {
    guard let stream = fopen(file, "r") else {
      throw CommandFailure(code: 2, text: "\(file): \(String(cString: strerror(errno)))")
    }
    defer { fclose(stream) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = fread(&buffer, 1, buffer.count, stream)
      if count == 0 { return String(decoding: bytes, as: UTF8.self) }
      bytes += buffer[..<count]
    }
  }

  /// Replays the trace with the driver of that name.
  private struct Visitor: DriverVisitor {
    let trace: Trace
    let driver: String
    var calls: Int?

    mutating func visit<D: NetworkDriver & ~Copyable>(_ type: D.Type) throws(ReplayError) {
      if D.name == driver { calls = try DriverReplay<D>.run(trace) }
    }
  }
}
