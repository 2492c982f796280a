import CLinux
import Glibc

/// The descriptors by which a front-end says that there is something in a ring. They are watched by their edges and never
/// read: a front-end gives what it likes, and a read of that might not come back.
struct KickSet: ~Copyable {
  /// Becomes readable with any of them; -1 where there is none to be had.
  let descriptor: Int32

  init() { descriptor = epoll_create1(Int32(EPOLL_CLOEXEC)) }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// - Returns: false for what cannot be watched, such as a file.
  borrowing func add(_ watched: Int32) -> Bool {
    var event = epoll_event(
      events: EPOLLIN.rawValue | EPOLLET.rawValue, data: epoll_data_t(fd: watched))
    return epoll_ctl(descriptor, EPOLL_CTL_ADD, watched, &event) == 0
  }

  /// Before it is closed: the front-end has the same file open.
  borrowing func remove(_ watched: Int32) {
    var event = epoll_event()
    if watched >= 0 { epoll_ctl(descriptor, EPOLL_CTL_DEL, watched, &event) }
  }

  /// Forgets the signals that have come.
  borrowing func drain() {
    withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 64) { events in
      _ = epoll_wait(descriptor, events.baseAddress, 64, 0)
    }
  }
}
