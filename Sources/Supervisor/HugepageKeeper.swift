import CLinux
import Channel
import Glibc
import Memory

/// Huge pages that a run has added to the system's pool, and a small process that takes them out again when the run is
/// over, however it ended: also when the supervisor is killed. One thread.
public final class HugepageKeeper {
  private var process: ChildProcess?
  private var control: ControlSocket?
  private var kept = 0

  public init() {}

  /// - Parameter pages: of 2 MiB, that should be free.
  public convenience init(pages: Int) throws(SupervisorError) {
    self.init()
    _ = try grow(toFree: pages)
  }

  /// Sees to it that `pages` are free, as far as the system lets us.
  /// - Returns: how many were added, for ``giveBackFree(_:)``.
  func grow(toFree pages: Int) throws(SupervisorError) -> Int {
    let added = HugepagePool.grow(toFree: pages)
    if added == 0 { return 0 }
    do throws(SupervisorError) {
      try keep(kept + added)
      return added
    } catch {
      HugepagePool.giveBack(added)
      throw error
    }
  }

  /// Takes pages out of the pool as soon as so many are free: a process that ends has its own for a moment longer.
  /// - Parameter pages: 0 afterwards where it was done.
  func giveBackFree(_ pages: inout Int) {
    if pages == 0 || HugepagePool.freePages < pages { return }
    giveBack(pages)
    pages = 0
  }

  private func giveBack(_ pages: Int) {
    kept -= pages
    control?.send("\(kept)")
    HugepagePool.giveBack(pages)
  }

  private func keep(_ pages: Int) throws(SupervisorError) {
    if process == nil {
      var control = try ControlSocket()
      let process = try ChildProcess(
        name: "hugepage keeper", program: Programs.martlet, arguments: ["keep-hugepages"],
        descriptors: [-1, 1, 2, control.peer])
      control.closePeer()
      self.control = consume control
      self.process = consume process
    }
    kept = pages
    control?.send("\(pages)")
  }

  /// After the memory has been unmapped here and elsewhere.
  deinit {
    control = nil
    _ = process?.end(withinMilliseconds: 3000)
  }
}

/// What the keeper's process does.
public enum HugepageKeeping {
  /// Is told how many pages to keep; waits for the end of the supervisor, then gives them back.
  public static func run(control: Int32) {
    // It has to outlive its supervisor for a moment.
    _ = linux_prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    signal(SIGINT, SIG_IGN)
    signal(SIGTERM, SIG_IGN)
    var pages = 0
    var text = [UInt8](repeating: 0, count: 32)
    while true {
      let count = read(control, &text, text.count)
      if count <= 0 { break }
      pages = Int(String(decoding: text[..<count], as: UTF8.self)) ?? pages
    }
    HugepagePool.giveBack(pages)
  }
}
