import Glibc

/// What the kernel's log says about a function's accesses that the IOMMU has stopped. The device itself does not
/// tell. The kernel leaves out repetitions: one line or more for what went wrong, never a number of accesses.
public final class IOMMUFaultLog {
  /// Becomes readable when anything is logged.
  public let descriptor: Int32
  private let address: String
  /// Messages so far.
  public private(set) var count: UInt64 = 0

  /// Reads what comes from now on.
  /// - Parameter address: in full, such as "0000:00:03.0".
  /// - Returns: nil where this user may not read the log.
  public init?(address: String) {
    descriptor = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    // Some kernels let it be opened and refuse to read.
    var byte: UInt8 = 0
    lseek(descriptor, 0, Int32(SEEK_END))
    guard read(descriptor, &byte, 0) >= 0 || errno != EPERM else {
      close(descriptor)
      return nil
    }
    self.address = address
  }

  deinit { close(descriptor) }

  /// The messages since the last call. Does not wait.
  public func newFaults() -> [String] {
    var faults: [String] = []
    var record = [UInt8](repeating: 0, count: 8192)
    // A log that grows faster than it is read is left for the next call.
    for _ in 0..<1000 {
      let count = read(descriptor, &record, record.count)
      // EPIPE: records were overwritten before they were read; the next ones are there.
      if count < 0 && errno == EPIPE { continue }
      guard count > 0 else { break }
      let text = String(decoding: record[..<count], as: UTF8.self)
      if let fault = Self.fault(in: text, of: address) { faults.append(fault) }
    }
    count += UInt64(faults.count)
    return faults
  }

  /// The message of a record of /dev/kmsg (Linux, Documentation/ABI/testing/dev-kmsg) if it is a fault of the
  /// function: Intel's "DMAR: [DMA Read …] Request device [00:03.0] fault addr …", AMD's "AMD-Vi: Event logged
  /// [IO_PAGE_FAULT device=0000:00:03.0 …", ARM's are without the address.
  static func fault(in record: String, of address: String) -> String? {
    guard let start = record.firstIndex(of: ";") else { return nil }
    let message = record[record.index(after: start)...].prefix { $0 != "\n" }
    let short = address.split(separator: ":").dropFirst().joined(separator: ":")
    let isIntel = message.contains("fault addr") && message.contains("device [\(short)]")
    let isAMD =
      message.contains("PAGE_FAULT")
      && (message.contains("device=\(address)") || message.contains("device=\(short)"))
    return isIntel || isAMD ? String(message) : nil
  }
}
