import Glibc

/// How long processes have run on a processor, as /proc shows it to everybody.
public enum ProcessorTime {
  /// - Returns: nanoseconds by process, without those that are no more.
  public static func of(_ processes: some Sequence<UInt64>) -> [UInt64: UInt64] {
    var result: [UInt64: UInt64] = [:]
    for process in processes { result[process] = of(process) }
    return result
  }

  private static func of(_ process: UInt64) -> UInt64? {
    guard let file = fopen("/proc/\(process)/stat", "re") else { return nil }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: 1024)
    let count = fread(&bytes, 1, bytes.count, file)
    return nanoseconds(String(decoding: bytes[..<count], as: UTF8.self))
  }

  /// proc_pid_stat(5): the name, in parentheses, may have anything in it; utime and stime are the 12th and 13th word behind.
  static func nanoseconds(_ stat: String) -> UInt64? {
    guard let end = stat.lastIndex(of: ")") else { return nil }
    let words = stat[stat.index(after: end)...].split(separator: " ")
    guard words.count > 12, let user = UInt64(words[11]), let system = UInt64(words[12]) else {
      return nil
    }
    return (user &+ system) &* (1_000_000_000 / UInt64(max(1, sysconf(Int32(_SC_CLK_TCK)))))
  }
}
