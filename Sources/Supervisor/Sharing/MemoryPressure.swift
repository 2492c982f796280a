import Glibc

/// The kernel's word that the system, or the run's control group, is short of memory: a trigger of pressure stall
/// information (Linux, Documentation/accounting/psi.rst). Where the kernel has none, or refuses, there is none.
struct MemoryPressure: ~Copyable {
  /// Has POLLPRI when memory is short; -1 where there is no trigger.
  let descriptor: Int32
  /// Where the trigger is, or why there is none.
  let place: String

  /// - Parameter trigger: such as `some 300000 2000000`: microseconds of stall in a window of microseconds, which is a multiple of
  ///   2 s for who has no CAP_SYS_RESOURCE; nil for none.
  init(trigger: String?) {
    guard let trigger else {
      descriptor = -1
      place = "the policy wants none"
      return
    }
    var refusals: [String] = []
    for file in Self.files() {
      let descriptor = open(file, O_RDWR | O_NONBLOCK | O_CLOEXEC)
      if descriptor >= 0 {
        let text = Array(trigger.utf8) + [0]
        if write(descriptor, text, text.count) > 0 {
          self.descriptor = descriptor
          place = file
          return
        }
      }
      refusals.append("\(file): \(String(cString: strerror(errno)))")
      if descriptor >= 0 { close(descriptor) }
    }
    descriptor = -1
    place = refusals.joined(separator: "; ")
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// The whole system's, then the control group's.
  private static func files() -> [String] {
    var files = ["/proc/pressure/memory"]
    if let file = fopen("/proc/self/cgroup", "re") {
      defer { fclose(file) }
      var line = [CChar](repeating: 0, count: 4096)
      while fgets(&line, Int32(line.count), file) != nil {
        let text = String(
          decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        if text.hasPrefix("0::") {
          let group = text.dropFirst(3).filter { $0 != "\n" }
          files.append("/sys/fs/cgroup\(group)/memory.pressure")
        }
      }
    }
    return files
  }
}
