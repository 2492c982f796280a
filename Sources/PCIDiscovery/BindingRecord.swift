import Glibc

/// Remembers whom a function belonged to, in /run/martlet/bound/ADDRESS, so that it can be given back after a crash
/// too. /run does not outlive the machine's start, and neither does the binding.
struct BindingRecord {
  let machine: Machine
  let address: PCIAddress

  private static let folders = ["/run", "/run/martlet", "/run/martlet/bound"]
  private var path: String { "/run/martlet/bound/\(address)" }

  /// The former driver: nil where there is no record, "" where it had no driver.
  func read() -> String? {
    guard let text = machine.text(path, limit: 4096) else { return nil }
    return text.allSatisfy(Self.isPartOfDriverName) ? text : nil
  }

  func write(_ driver: String) throws(BindingError) {
    for folder in Self.folders where mkdir(machine.path(folder), 0o755) != 0 && errno != EEXIST {
      throw Self.failure("making \(folder)", machine.path(folder))
    }
    // Complete under its own name only, so that a crash leaves no half a record.
    let whole = machine.path(path)
    let part = whole + ".new"
    let descriptor = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o644)
    guard descriptor >= 0 else { throw Self.failure("writing \(part)", part) }
    let bytes = Array((driver + "\n").utf8)
    let count = Glibc.write(descriptor, bytes, bytes.count)
    let error = errno
    close(descriptor)
    guard count == bytes.count, rename(part, whole) == 0 else {
      unlink(part)
      throw .system(step: "writing \(whole)", errno: count == bytes.count ? errno : error)
    }
  }

  func remove() { unlink(machine.path(path)) }

  private static func isPartOfDriverName(_ character: Character) -> Bool {
    character.isASCII && (character.isLetter || character.isNumber || "-_.".contains(character))
  }

  private static func failure(_ step: String, _ path: String) -> BindingError {
    errno == EACCES || errno == EPERM || errno == EROFS
      ? .permission(path: path) : .system(step: step, errno: errno)
  }
}
