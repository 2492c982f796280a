import CLinux
import Glibc

/// The file that a recorded run's trace goes to. The driver host, which can write no file, writes to a pipe; a thread of
/// this process copies from there. One thread uses it.
public final class TraceFile {
  public let path: String
  private let copier: Copier
  private var thread = pthread_t()
  /// What the host inherits; -1 once it has.
  private(set) var hostEnd: Int32
  private var isFinished = false

  /// Creates the file, or empties it.
  public init(path: String) throws(SupervisorError) {
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard file >= 0 else {
      throw .input("no trace can be written to \(path): \(String(cString: strerror(errno)))")
    }
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else {
      let error = errno
      close(file)
      throw .system("pipe", error)
    }
    self.path = path
    hostEnd = ends[1]
    copier = Copier(from: ends[0], to: file)
    // Signals are for the thread that waits for them.
    var all = sigset_t()
    var former = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &former)
    defer { pthread_sigmask(SIG_SETMASK, &former, nil) }
    let result = pthread_create(
      &thread, nil,
      { copier in
        Unmanaged<Copier>.fromOpaque(copier!).takeRetainedValue().copy()
        return nil
      }, Unmanaged.passRetained(copier).toOpaque())
    guard result == 0 else {
      Unmanaged.passUnretained(copier).release()
      closeHostEnd()
      isFinished = true
      throw .system("pthread_create", result)
    }
  }

  deinit { if !isFinished { _ = finish() } }

  /// To be called when the host has inherited its end.
  func closeHostEnd() {
    if hostEnd >= 0 { close(hostEnd) }
    hostEnd = -1
  }

  /// Waits until all that the host has written is in the file. Only when the host has ended.
  /// - Returns: lines that were written, and why not all were; nil where all were. There is a limit of 1 GiB.
  public func finish() -> (lines: Int, failure: String?) {
    if !isFinished {
      isFinished = true
      closeHostEnd()
      pthread_join(thread, nil)
    }
    let failure = copier.error == 0 ? nil : String(cString: strerror(copier.error))
    return (copier.lines, failure)
  }
}

// Invariant: the results are written by the copying thread and read after it was joined.
private final class Copier: @unchecked Sendable {
  private let source: Int32
  private let file: Int32
  private(set) var lines = 0
  /// A host that has been taken over must not be able to fill the disk.
  private var left = 1 << 30
  /// Why the file takes no more; 0 while it does.
  private(set) var error: Int32 = 0

  init(from source: Int32, to file: Int32) {
    self.source = source
    self.file = file
  }

  deinit {
    close(source)
    close(file)
  }

  /// Until the last writer is gone. A file that is full does not hold up the host.
  func copy() {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(source, &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      if count <= 0 { return }
      if error != 0 { continue }
      left -= count
      if left < 0 {
        error = EFBIG
        continue
      }
      var done = 0
      while done < count {
        let written = buffer.withUnsafeBytes { write(file, $0.baseAddress! + done, count - done) }
        if written < 0 && errno == EINTR { continue }
        if written <= 0 {
          error = written < 0 ? errno : EIO
          break
        }
        lines += buffer[done..<done + written].count { $0 == UInt8(ascii: "\n") }
        done += written
      }
    }
  }
}
