import CLinux
import Glibc
import Supervisor

/// A folder of this run alone. A small process removes it when the run is over, however it ended: also when it is killed.
public final class ScratchFolder {
  public let path: String
  private let keeper: LineProcess

  public init() throws {
    var template = Array("/tmp/martlet-bench-XXXXXX".utf8CString)
    guard let made = mkdtemp(&template) else {
      throw FileError(action: "make", path: "/tmp/martlet-bench-XXXXXX", code: errno)
    }
    path = String(cString: made)
    do {
      keeper = try LineProcess(
        name: "the scratch folder's keeper", program: Programs.martlet,
        arguments: ["bench-end", "scratch", path])
      _ = try keeper.line { $0 == "ready" }
    } catch {
      rmdir(path)
      throw error
    }
  }

  /// A path for a new file or socket.
  func socket(_ name: String) -> String { path + "/" + name }

  /// What the keeper's process does: waits for the end of standard input, then removes the folder.
  public static func keep(_ path: String) {
    // It has to outlive the run for a moment.
    _ = linux_prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    for number in [SIGINT, SIGTERM, SIGHUP] { signal(number, SIG_IGN) }
    print("ready")
    fflush(nil)
    while readLine() != nil {}
    // Programs that were killed with the run may make files until they are gone.
    for _ in 0..<20 {
      removeFiles(in: path)
      if rmdir(path) == 0 || errno == ENOENT { return }
      usleep(50_000)
    }
  }

  private static func removeFiles(in path: String) {
    guard path.hasPrefix("/tmp/martlet-bench-"), let folder = opendir(path) else { return }
    defer { closedir(folder) }
    while let entry = readdir(folder) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != "." && name != ".." { unlink(path + "/" + name) }
    }
  }
}
