import Glibc

/// The kernel's log from now on, where this user may read it: the only place where an IOMMU's refusals can be seen. The
/// device itself does not notice that its DMA was stopped.
public struct KernelLog: ~Copyable {
  public let descriptor: Int32
  /// As the IOMMU drivers name the function: bus:device.function.
  private let function: String
  public private(set) var faults: UInt64 = 0

  /// - Parameter address: of the function whose faults are wanted, such as 0000:00:03.0; nil for no function, and then
  ///   there is no log.
  public init(address: String?) {
    guard let address else {
      function = ""
      descriptor = -1
      return
    }
    function = address.split(separator: ":").suffix(2).joined(separator: ":")
    descriptor = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    if descriptor >= 0 { lseek(descriptor, 0, SEEK_END) }
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// Reads what has been logged since the last time.
  /// - Returns: lines that report a fault of the function. Repeated faults are compressed by the kernel: at least so many
  ///   happened.
  public mutating func newFaults() -> [String] {
    guard descriptor >= 0 else { return [] }
    var lines: [String] = []
    var bytes = [UInt8](repeating: 0, count: 8192)
    // Bounded: a log that never ends is looked at again later.
    for _ in 0..<256 {
      let count = read(descriptor, &bytes, bytes.count)
      // EPIPE: records were overwritten before they were read; the next read goes on behind them.
      if count < 0 && errno == EPIPE { continue }
      guard count > 0 else { break }
      let record = String(decoding: bytes[..<count], as: UTF8.self)
      guard let text = record.split(separator: ";", maxSplits: 1).last else { continue }
      let line = text.split(separator: "\n").first.map(String.init) ?? ""
      if Self.isFault(line, of: function) {
        faults += 1
        lines.append(line)
      }
    }
    return lines
  }

  /// Intel's and AMD's drivers and the generic message of ARM's name the function differently, but all name it.
  static func isFault(_ line: String, of function: String) -> Bool {
    let isReport =
      line.contains("DMAR:") && line.contains("fault addr") || line.contains("IO_PAGE_FAULT")
      || line.contains("arm-smmu") && line.contains("fault")
    return isReport && line.contains(function)
  }
}
