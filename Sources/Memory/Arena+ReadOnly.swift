import CLinux
import Glibc

extension Arena {
  /// Another descriptor of the same memory, for a process that is only to read it: what it maps by it, it cannot write,
  /// and it cannot open it anew for writing unless it is this process's user or root. Any thread.
  /// - Returns: a descriptor, the caller's to close.
  /// - Throws: ``MemoryError/system(call:errno:)``.
  public func makeReadOnlyDescriptor() throws(MemoryError) -> Int32 {
    // Descriptors that there are keep the right to write that they were opened with.
    guard fchmod(descriptor, 0o400) == 0 else {
      throw .system(call: "making memory read-only", errno: errno)
    }
    let result = open("/proc/self/fd/\(descriptor)", O_RDONLY | O_CLOEXEC)
    guard result >= 0 else { throw .system(call: "opening memory for reading", errno: errno) }
    return result
  }
}
