import CLinux
import Glibc

/// The cores of this machine, as far as this process may use them.
public struct Cores {
  /// Cores that this process may run on.
  public let allowed: [Int]

  public init() {
    allowed = (0..<4096).filter { linux_may_run_on_core(0, Int32($0)) == 1 }
  }

  /// Cores for so many queue threads: each gets one that no other driver host's is bound to.
  /// - Parameter others: cores that are left for everything else.
  /// - Returns: none where there are not enough.
  public func free(for threads: Int, leaving others: Int) -> [Int] {
    let taken = Self.taken(of: allowed)
    let free = allowed.filter { !taken.contains($0) }
    return free.count >= threads + others ? Array(free.suffix(threads)) : []
  }

  /// Cores that threads of running driver hosts are bound to.
  private static func taken(of cores: [Int]) -> Set<Int> {
    var taken: Set<Int> = []
    for process in ProcessRights.ofRuns() {
      for thread in process.threads where thread.cores.count == 1 { taken.formUnion(thread.cores) }
    }
    return taken
  }
}
