import Glibc
import Supervisor

/// The threads of a process, as /proc shows them (proc(5)).
struct HostThreads {
  let process: pid_t

  /// Folders in /proc.
  var paths: [String] {
    let folder = "/proc/\(process)/task"
    guard let open = opendir(folder) else { return [] }
    defer { closedir(open) }
    var paths: [String] = []
    while let entry = readdir(open) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name.first?.isNumber == true { paths.append("\(folder)/\(name)") }
    }
    return paths
  }

  func path(of name: String) throws -> String {
    for path in paths where try readText(path + "/comm") == name + "\n" { return path }
    throw SupervisorError.input("process \(process) has no thread named \(name)")
  }

  /// Minor and major page faults of all threads.
  func faults() throws -> UInt64 {
    var sum: UInt64 = 0
    for path in paths {
      // The name, which may hold anything, ends with the last parenthesis.
      let text = try readText(path + "/stat").split(separator: ")").last ?? ""
      let fields = text.split(separator: " ")
      guard fields.count > 9, let minor = UInt64(fields[7]), let major = UInt64(fields[9]) else {
        throw SupervisorError.input("\(path)/stat is not as it should be")
      }
      sum += minor + major
    }
    return sum
  }

  /// The first two fields of a thread's schedstat.
  static func schedule(_ path: String) throws -> (ran: UInt64, waited: UInt64) {
    let fields = try readText(path + "/schedstat").split(separator: " ")
    guard fields.count >= 2, let ran = UInt64(fields[0]), let waited = UInt64(fields[1]) else {
      throw SupervisorError.input("\(path)/schedstat is not as it should be")
    }
    return (ran, waited)
  }
}
