import CLinux
import Channel
import Glibc
import Memory

/// Huge pages that a run has added to the system's pool, and a small process that takes them out again when the run is
/// over, however it ended: also when the supervisor is killed.
public final class HugepageKeeper {
  private var process: ChildProcess?
  private var control: ControlSocket?

  /// - Parameter pages: of 2 MiB, that should be free.
  public init(pages: Int) throws(SupervisorError) {
    let added = HugepagePool.grow(toFree: pages)
    if added == 0 { return }
    do throws(SupervisorError) {
      var control = try ControlSocket()
      let process = try ChildProcess(
        name: "hugepage keeper", program: Programs.martlet,
        arguments: ["keep-hugepages", "--pages", "\(added)"], descriptors: [-1, 1, 2, control.peer])
      control.closePeer()
      self.control = consume control
      self.process = consume process
    } catch {
      HugepagePool.giveBack(added)
      throw error
    }
  }

  /// After the memory has been unmapped here and elsewhere.
  deinit {
    control = nil
    _ = process?.end(withinMilliseconds: 3000)
  }
}

/// What the keeper's process does.
public enum HugepageKeeping {
  /// Waits for the end of the supervisor, then gives the pages back.
  public static func run(pages: Int, control: Int32) {
    // It has to outlive its supervisor for a moment.
    _ = linux_prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    signal(SIGINT, SIG_IGN)
    signal(SIGTERM, SIG_IGN)
    var byte: UInt8 = 0
    while read(control, &byte, 1) > 0 {}
    HugepagePool.giveBack(pages)
  }
}
