import Glibc

/// The system's pool of huge pages of 2 MiB: grown at run time by what a run lacks, and shrunk by the same afterwards.
/// Pages that the machine's owner has set aside stay as they were.
public enum HugepagePool {
  private static let size = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
  private static let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

  // Taken out of the pool while in use: the size counts them, though they go when they are free.
  private static let surplus = "/sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages"

  /// Pages that nobody uses; -1 where the system has none.
  public static var freePages: Int { read(free) }

  /// Sees to it that `pages` are free, as far as the system lets us.
  /// - Returns: how many were added, for ``giveBack(_:)``; 0 where enough were free or not all can be had.
  public static func grow(toFree pages: Int) -> Int {
    var added = 0
    // More than once: pages that another run has given back while they were in use count as added, and are not free yet.
    for _ in 0..<3 {
      let lacking = pages - read(free)
      if lacking <= 0 { return added }
      let more = change(by: lacking)
      added += more
      if more < lacking { break }
    }
    if read(free) >= pages { return added }
    // Fewer than asked for are of no use: the caller falls back to ordinary pages.
    giveBack(added)
    return 0
  }

  /// Takes pages out of the pool again.
  public static func giveBack(_ pages: Int) {
    if pages > 0 { _ = change(by: -pages) }
  }

  /// The pool's size can only be set, not added to: a lock on the file keeps runs from undoing each other's change.
  /// - Returns: by how much it has grown.
  private static func change(by pages: Int) -> Int {
    let descriptor = open(size, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return 0 }
    defer { close(descriptor) }
    _ = flock(descriptor, LOCK_EX)
    let before = read(size) - max(0, read(surplus))
    guard before >= 0, write(max(0, before + pages)) else { return 0 }
    return read(size) - max(0, read(surplus)) - before
  }

  private static func read(_ path: String) -> Int {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return -1 }
    defer { close(descriptor) }
    var text = [UInt8](repeating: 0, count: 32)
    let count = Glibc.read(descriptor, &text, text.count)
    return Int(String(decoding: text[..<max(0, count)], as: UTF8.self).filter(\.isNumber)) ?? -1
  }

  private static func write(_ value: Int) -> Bool {
    let descriptor = open(size, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    let text = Array("\(value)".utf8)
    return Glibc.write(descriptor, text, text.count) == text.count
  }
}
