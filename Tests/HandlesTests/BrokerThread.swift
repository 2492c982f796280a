import CLinux
import Glibc
import Synchronization
import Testing

@testable import Handles

/// A service in a thread of its own, with clients over socket pairs.
final class BrokerThread: Sendable {
  private let requests: Int32
  private let requestsEnd: Int32
  private let isOver = Atomic<Bool>(false)
  private let hasEnded = Atomic<Bool>(false)

  init(limits: HandleBroker.Limits = .init()) throws {
    var ends: [Int32] = [-1, -1]
    try #require(linux_pipe(&ends) == 0)
    requestsEnd = ends[0]
    requests = ends[1]
    let end = requestsEnd
    Thread.start { [self] in
      guard let service = try? HandleService(limits: limits) else { return }
      var entries = [service.descriptor, end].map {
        pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
      }
      while !isOver.load(ordering: .acquiring) {
        poll(&entries, 2, 20)
        if entries[1].revents & Int16(POLLIN) != 0 {
          var socket: Int32 = -1
          if read(end, &socket, 4) == 4 { try? service.accept(socket) }
        }
        service.serve(now: monotonic_nanoseconds())
      }
      hasEnded.store(true, ordering: .releasing)
    }
  }

  func socket() throws -> Int32 {
    var ends: [Int32] = [-1, -1]
    let type = Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue)
    try #require(socketpair(AF_UNIX, type, 0, &ends) == 0)
    var theirs = ends[1]
    _ = write(requests, &theirs, 4)
    return ends[0]
  }

  func client() throws -> HandleClient { try HandleClient(adopting: socket()) }

  func end() {
    isOver.store(true, ordering: .releasing)
    for _ in 0..<3000 where !hasEnded.load(ordering: .acquiring) { usleep(10_000) }
    close(requests)
    close(requestsEnd)
  }
}

enum Thread {
  static func start(_ body: @escaping @Sendable () -> Void) {
    final class Box {
      let body: () -> Void
      init(_ body: @escaping () -> Void) { self.body = body }
    }
    var thread = pthread_t()
    pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
        return nil
      }, Unmanaged.passRetained(Box(body)).toOpaque())
    pthread_detach(thread)
  }
}

/// How many descriptors this process has for any of these files. Other tests run in it meanwhile; files that the kernel
/// gives no inode of their own, such as eventfds, are left out.
func openings(of files: [Int32]) -> Int {
  func file(_ descriptor: Int32) -> [UInt64]? {
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT != 0 else { return nil }
    return [UInt64(status.st_dev), UInt64(status.st_ino)]
  }
  let wanted = Set(files.compactMap(file))
  return (Int32(0)..<4096).count { file($0).map(wanted.contains) ?? false }
}

func refusal(_ body: () throws -> Void) -> HandleRefusal? {
  do { try body() } catch let error as HandleRefusal { return error } catch HandleError.refused(
    let reason)
  {
    return reason
  } catch { Issue.record(error) }
  return nil
}

/// Whether this process comes to have so many descriptors for these files: those of unknown kind are closed by and by.
func comesBack(to count: Int, of files: [Int32]) -> Bool {
  for _ in 0..<3000 where openings(of: files) != count { usleep(10_000) }
  return openings(of: files) == count
}
