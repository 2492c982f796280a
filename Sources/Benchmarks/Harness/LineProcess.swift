import CLinux
import Glibc
import Supervisor

/// A program that is told what to do by lines, and answers by lines. Ended when the value goes away.
public final class LineProcess {
  public let name: String
  private var process: ChildProcess
  private let input: Int32
  private let output: Int32
  private var pending: [UInt8] = []
  /// The last lines that it wrote, for messages.
  private var recent: [String] = []

  /// - Parameter descriptors: further ones, from number 3 on.
  public init(
    name: String, program: String, arguments: [String], descriptors: [Int32] = []
  ) throws {
    self.name = name
    var input: [Int32] = [-1, -1]
    var output: [Int32] = [-1, -1]
    guard linux_pipe(&input) == 0, linux_pipe(&output) == 0 else {
      throw SupervisorError.system("pipe", errno)
    }
    defer {
      close(input[0])
      close(output[1])
    }
    process = try ChildProcess(
      name: name, program: program, arguments: arguments,
      environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/tmp"],
      descriptors: [input[0], output[1], output[1]] + descriptors)
    self.input = input[1]
    self.output = output[0]
  }

  deinit {
    close(input)
    process.signal(SIGINT)
    _ = process.end(withinMilliseconds: 3000)
    close(output)
  }

  public var identifier: pid_t { process.identifier }

  public func send(_ line: String) {
    let bytes = Array((line + "\n").utf8)
    _ = write(input, bytes, bytes.count)
  }

  /// The next line for which the test holds; others are skipped.
  /// - Throws: where none comes in time or the program has ended, with its last lines.
  public func line(
    withinMilliseconds limit: Int = 5000, where test: (String) -> Bool = { _ in true }
  ) throws -> String {
    let end = monotonic_nanoseconds() + UInt64(limit) * 1_000_000
    while true {
      while let at = pending.firstIndex(where: { $0 == 10 || $0 == 13 }) {
        let text = String(decoding: pending[..<at], as: UTF8.self)
        pending.removeFirst(at + 1)
        if text.isEmpty { continue }
        recent = recent.suffix(7) + [text]
        if test(text) { return text }
      }
      let now = monotonic_nanoseconds()
      guard now < end else { throw failure("did not answer in \(limit) ms") }
      var entry = pollfd(fd: output, events: Int16(POLLIN), revents: 0)
      if poll(&entry, 1, Int32((end - now) / 1_000_000 + 1)) <= 0 { continue }
      var chunk = [UInt8](repeating: 0, count: 4096)
      let count = read(output, &chunk, chunk.count)
      guard count > 0 else { throw failure("has ended") }
      pending += chunk[..<count]
    }
  }

  private func failure(_ what: String) -> SupervisorError {
    .input(
      "\(name) \(what)\(recent.isEmpty ? "" : "; it said: " + recent.joined(separator: " | "))")
  }

  /// Nanoseconds for which its threads have had a core.
  public var cpuNanoseconds: UInt64 { Benchmarks.cpuNanoseconds(of: identifier) }
}

/// Nanoseconds for which a process's threads have had a core (proc(5), schedstat).
func cpuNanoseconds(of process: pid_t) -> UInt64 {
  var sum: UInt64 = 0
  for thread in threads(of: process) {
    let text = try? readText("/proc/\(process)/task/\(thread)/schedstat")
    sum += text?.split(separator: " ").first.flatMap { UInt64($0) } ?? 0
  }
  return sum
}

private func threads(of process: pid_t) -> [String] {
  guard let folder = opendir("/proc/\(process)/task") else { return [] }
  defer { closedir(folder) }
  var names: [String] = []
  while let entry = readdir(folder) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) {
      $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
    }
    if name.first?.isNumber == true { names.append(name) }
  }
  return names
}
