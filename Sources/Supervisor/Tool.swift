import CLinux
import Glibc

/// A program of the system, run to its end.
public struct Tool: Sendable {
  public let path: String

  /// - Parameter name: looked for in the usual folders, whatever PATH says.
  public init(_ name: String, package: String) throws(SupervisorError) {
    for folder in ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
    where access("\(folder)/\(name)", X_OK) == 0 {
      path = "\(folder)/\(name)"
      return
    }
    throw .input("\(name) is not installed: `apt-get install \(package)`")
  }

  /// Runs it and collects what it prints, up to 1 MiB.
  public func run(
    _ arguments: [String], withinMilliseconds limit: Int32 = 10_000
  ) throws(SupervisorError) -> (end: ProcessEnd, output: String) {
    var job = try start(arguments)
    return job.end(withinMilliseconds: limit)
  }

  /// Starts it; what it prints is collected.
  public func start(_ arguments: [String]) throws(SupervisorError) -> Job {
    let output = linux_memfd_create("output", LINUX_MFD_CLOEXEC)
    guard output >= 0 else { throw .system("memfd_create", -output) }
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    defer { close(null) }
    do throws(SupervisorError) {
      let process = try ChildProcess(
        name: path, program: path, arguments: arguments,
        environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"],
        descriptors: [null, output, output])
      return Job(process: process, output: output)
    } catch {
      close(output)
      throw error
    }
  }

  /// A program that runs.
  public struct Job: ~Copyable {
    public var process: ChildProcess
    private let output: Int32

    init(process: consuming ChildProcess, output: Int32) {
      self.process = process
      self.output = output
    }

    deinit { close(output) }

    /// Waits for its end, and ends it when that does not come in time.
    public mutating func end(
      withinMilliseconds limit: Int32 = 0
    ) -> (end: ProcessEnd, output: String) {
      let end = process.end(withinMilliseconds: limit)
      var text = [UInt8](repeating: 0, count: 1 << 20)
      let count = pread(output, &text, text.count, 0)
      return (end, String(decoding: text[..<max(0, count)], as: UTF8.self))
    }
  }
}
