import Glibc

/// A file of text that a person has written, read as a whole.
enum TextFile {
  /// Why there is none.
  struct Failure: Error {
    let reason: String
  }

  /// - Parameter limit: more bytes are refused.
  static func read(_ path: String, limit: Int) throws(Failure) -> String {
    guard let file = fopen(path, "re") else {
      throw Failure(reason: String(cString: strerror(errno)))
    }
    defer { fclose(file) }
    var bytes = [UInt8](repeating: 0, count: limit + 1)
    let count = fread(&bytes, 1, bytes.count, file)
    guard ferror(file) == 0 else { throw Failure(reason: String(cString: strerror(errno))) }
    guard count <= limit else { throw Failure(reason: "longer than \(limit) bytes") }
    guard let text = String(validating: bytes[..<count], as: UTF8.self) else {
      throw Failure(reason: "it is not UTF-8")
    }
    return text
  }
}
