import ArgumentParser
import Glibc
import Stacks

/// The bytes that the HTTP server sends for /bytes/N, for whoever wants to compare.
struct Pattern: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write the bytes of /bytes/N to standard output.")

  @Argument(help: "How many bytes.")
  var count: UInt64

  func run() throws {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 64)
    defer { buffer.deallocate() }
    var offset: UInt64 = 0
    while offset < count {
      let piece = UnsafeMutableRawBufferPointer(
        rebasing: buffer[..<Int(min(count - offset, UInt64(buffer.count)))])
      PatternContent.fill(piece, offset: offset)
      var done = 0
      while done < piece.count {
        let written = write(1, piece.baseAddress! + done, piece.count - done)
        if written < 0 && errno == EINTR { continue }
        guard written > 0 else { throw ExitCode(1) }
        done += written
      }
      offset += UInt64(piece.count)
    }
  }
}
