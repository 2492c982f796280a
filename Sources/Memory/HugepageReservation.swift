import Glibc

/// Huge pages of 2 MiB that were added to the system's pool at run time, and are taken out of it again when this goes
/// away: only as many as were added. Pages that the machine's owner has set aside stay as they were.
public struct HugepageReservation: ~Copyable {
  /// Pages that this reservation has added.
  public let added: Int
  private static let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
  private static let free = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

  /// Sees to it that `pages` are free, as far as the system lets us.
  public init(pages: Int) {
    let lacking = pages - Self.read(Self.free)
    guard lacking > 0 else {
      added = 0
      return
    }
    let before = Self.read(Self.pool)
    guard before >= 0, Self.write(before + lacking) else {
      added = 0
      return
    }
    let reached = Self.read(Self.pool) - before
    // Fewer than asked for are of no use: the caller falls back to ordinary pages.
    if reached < lacking {
      _ = Self.write(before)
      added = 0
    } else {
      added = reached
    }
  }

  deinit {
    if added > 0 { _ = Self.write(max(0, Self.read(Self.pool) - added)) }
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
    let descriptor = open(pool, O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return false }
    defer { close(descriptor) }
    let text = Array("\(value)".utf8)
    return Glibc.write(descriptor, text, text.count) == text.count
  }
}
