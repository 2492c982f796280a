import CLinux
import Channel
import Glibc

@testable import Statistics

/// A supervisor in this process that hands out pages which a test writes.
final class PlayedRun: @unchecked Sendable {
  let path = "/tmp/martlet-statistics-\(getpid())-\(UInt32.random(in: 0...(.max)))"
  let own: CounterPage
  let host: CounterPage
  private let listener: Int32
  private var thread = pthread_t()
  /// What is said of each page, and times that it was asked for; under the lock of the one thread that serves.
  nonisolated(unsafe) var lines: [(text: String, descriptor: Int32)] = []
  /// Messages with several descriptors.
  nonisolated(unsafe) var more: [(text: String, descriptors: [Int32])] = []
  nonisolated(unsafe) var requests = 0

  init() throws {
    own = try CounterPage(capacity: 4)
    own.name(0, "instances_attached")
    own.name(1, "host_process")
    host = try CounterPage(capacity: 8, histograms: 1)
    listener = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0)
    precondition(linux_bind_unix(listener, path) == 0 && listen(listener, 4) == 0)
    lines = [
      ("run device=played queues=1", -1),
      ("page of=supervisor entries=4", own.descriptor),
      ("page of=host entries=8 histograms=1", host.descriptor),
    ]
  }

  deinit {
    close(listener)
    unlink(path)
  }

  /// Answers those who ask while `body` runs, one after the other.
  @discardableResult
  func serving<R>(_ body: () throws -> R) rethrows -> R {
    pthread_create(
      &thread, nil,
      {
        Unmanaged<PlayedRun>.fromOpaque($0!).takeUnretainedValue().serve()
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
    defer {
      shutdown(listener, Int32(SHUT_RDWR))
      pthread_join(thread, nil)
    }
    return try body()
  }

  private func serve() {
    while true {
      let connection = accept(listener, nil, nil)
      if connection < 0 { return }
      var entry = pollfd(fd: connection, events: Int16(POLLIN), revents: 0)
      _ = poll(&entry, 1, 2000)
      _ = ControlMessage.receive(from: connection)
      requests += 1
      for line in lines {
        ControlMessage.send(
          line.text, descriptors: line.descriptor < 0 ? [] : [line.descriptor], to: connection)
      }
      for line in more {
        ControlMessage.send(line.text, descriptors: line.descriptors, to: connection)
      }
      ControlMessage.send("end", to: connection)
      close(connection)
    }
  }
}
