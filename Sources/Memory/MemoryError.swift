import Glibc

/// Why memory could not be had or was refused. One line with the remedy.
public enum MemoryError: Error, Equatable, Sendable {
  /// A system call failed: what it was to do, and the reason.
  case system(call: String, errno: Int32)
  /// The descriptor is no memory of the size that was promised.
  case tooSmall(byteCount: Int, needed: Int)
  /// Its owner could shrink the memory under us.
  case notSealed
  /// A size that is not a positive multiple of the page size, in bytes.
  case badSize(byteCount: Int, pageSize: Int)
}

extension MemoryError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .system(let call, ENOMEM) where call.hasSuffix("huge pages"):
      "\(call): too few are free: `sysctl -w vm.nr_hugepages=64`"
    case .system(let call, let errno): "\(call): \(String(cString: strerror(errno)))"
    case .tooSmall(let byteCount, let needed):
      "the memory has \(byteCount) bytes, \(needed) were promised"
    case .notSealed: "the memory's owner could shrink it: it must carry F_SEAL_SHRINK"
    case .badSize(let byteCount, let pageSize):
      "\(byteCount) bytes are not a positive multiple of the page size \(pageSize)"
    }
  }
}
