import CLinux
import Glibc
import Memory

/// A text that one process gives another by descriptor, where it is longer than a message: in a memfd. Any thread.
public struct SharedText: ~Copyable {
  private let arena: Arena
  public let byteCount: Int

  public var descriptor: Int32 { arena.descriptor }

  /// Longer texts are not taken from others.
  public static let maximumBytes = 8 << 20

  public init(_ text: String, name: String) throws(MemoryError) {
    let bytes = Array(text.utf8)
    byteCount = bytes.count
    arena = try Arena(
      byteCount: (max(1, bytes.count) + 4095) / 4096 * 4096, pageSize: .ordinary, name: name)
    bytes.withUnsafeBytes {
      if let start = $0.baseAddress {
        arena.address.copyMemory(from: start, byteCount: $0.count)
      }
    }
  }

  /// What another process has given.
  /// - Parameters:
  ///   - descriptor: stays the caller's. What is no memfd is not read: a read from it could wait for ever.
  ///   - byteCount: as the other says.
  /// - Returns: nil where it is no text of that length.
  public static func read(_ descriptor: Int32, byteCount: Int) -> String? {
    guard (0...maximumBytes).contains(byteCount), linux_fcntl(descriptor, LINUX_F_GET_SEALS, 0) >= 0
    else { return nil }
    var bytes = [UInt8](repeating: 0, count: byteCount)
    var done = 0
    while done < byteCount {
      let count = bytes.withUnsafeMutableBytes {
        pread(descriptor, $0.baseAddress! + done, byteCount - done, off_t(done))
      }
      if count <= 0 { return nil }
      done += count
    }
    return String(validating: bytes, as: UTF8.self)
  }
}
