import Glibc

/// A file that cannot be read or written.
public struct FileError: Error, CustomStringConvertible {
  var action: String
  var path: String
  var code: Int32
  public var description: String { "cannot \(action) \(path): \(String(cString: strerror(code)))" }
}

/// Reads a whole file as UTF-8.
public func readText(_ path: String) throws -> String {
  guard let file = fopen(path, "re") else {
    throw FileError(action: "read", path: path, code: errno)
  }
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 1 << 16)
  while true {
    let count = fread(&chunk, 1, chunk.count, file)
    if count == 0 { break }
    bytes += chunk[..<count]
  }
  return String(decoding: bytes, as: UTF8.self)
}

/// Writes a file anew; makes `.build` where a path begins with it and there is none yet.
public func writeText(_ text: String, to path: String) throws {
  if path.hasPrefix(".build/") { _ = mkdir(".build", 0o755) }
  guard let file = fopen(path, "we") else {
    throw FileError(action: "write", path: path, code: errno)
  }
  let bytes = Array(text.utf8)
  let isWritten = fwrite(bytes, 1, bytes.count, file) == bytes.count
  guard fclose(file) == 0, isWritten else {
    throw FileError(action: "write", path: path, code: errno)
  }
}
