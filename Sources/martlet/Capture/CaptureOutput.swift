import Glibc

/// Where a capture goes: a file, a pipe or the standard output. Nobody is waited for who is told to end.
struct CaptureOutput: ~Copyable {
  private let descriptor: Int32
  private let isPipe: Bool

  /// - Parameter path: `-` for the standard output. What is in the file is lost.
  init(path: String) throws {
    // Whoever has read enough closes the pipe: that is an error of the write, and not the end of the process.
    signal(SIGPIPE, SIG_IGN)
    let opened: Int32
    if path == "-" {
      guard isatty(1) == 0 else {
        throw CommandFailure(
          code: 2,
          text: "the standard output is a terminal: pipe it into tcpdump -r -, or name a file")
      }
      opened = dup(1)
    } else {
      opened = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    }
    guard opened >= 0 else {
      throw CommandFailure(code: 1, text: "\(path): \(String(cString: strerror(errno)))")
    }
    descriptor = opened
    var status = stat()
    isPipe = fstat(opened, &status) == 0 && status.st_mode & S_IFMT != S_IFREG
  }

  deinit { close(descriptor) }

  /// - Parameter end: readable when the process is told to end; then nobody is waited for longer than a second.
  /// - Returns: false where nobody reads any more.
  func write(_ bytes: [UInt8], until end: Int32) throws -> Bool {
    var done = 0
    while done < bytes.count {
      // A pipe that is ready takes a page at once.
      let part = isPipe ? min(4096, bytes.count - done) : bytes.count - done
      var entries = [
        pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0),
        pollfd(fd: end, events: Int16(POLLIN), revents: 0),
      ]
      if isPipe, poll(&entries, 2, -1) > 0, entries[0].revents & Int16(POLLOUT) == 0,
        entries[1].revents != 0
      {
        var last = entries[0]
        if poll(&last, 1, 1000) <= 0 { return false }
      }
      let count = bytes.withUnsafeBytes { buffer -> Int in
        guard let start = buffer.baseAddress else { return 0 }
        return Glibc.write(descriptor, start + done, part)
      }
      if count < 0 && errno == EINTR { continue }
      if count < 0 && errno == EPIPE { return false }
      guard count > 0 else {
        throw CommandFailure(
          code: 1, text: "the capture cannot be written: \(String(cString: strerror(errno)))")
      }
      done += count
    }
    return true
  }
}
