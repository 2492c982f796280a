import CLinux
import Glibc

/// What wakes one queue thread: its interrupt, this process's other threads, and the doorbell of each instance, which come
/// and go while it sleeps.
///
/// Doorbells are never read: epoll is told of each ring by itself (EPOLLET, epoll(7)). An instance can read its doorbell,
/// fill it or let its calls block; nothing here waits for it, and nobody else's is touched. Any thread.
final class WakeSet: Sendable {
  private let descriptor: Int32
  private let own: Int32
  let interrupt: Int32

  private static let interruptMark: UInt64 = 1
  private static let firstInstanceMark: UInt64 = 2

  /// - Parameter interrupt: an eventfd, which stays the caller's.
  init(interrupt: Int32) throws(HostError) {
    self.interrupt = interrupt
    descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    own = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
    guard descriptor >= 0, own >= 0, add(own),
      watch(interrupt, EPOLLIN.rawValue, Self.interruptMark)
    else { throw .memory("no descriptors for a queue thread: \(String(cString: strerror(errno)))") }
  }

  deinit {
    close(descriptor)
    close(own)
  }

  /// Wakes the thread whenever this eventfd is rung from now on. It stays the caller's.
  /// - Parameter instance: whose it is, 0 to 63; nil where nobody asks.
  /// - Returns: false where it is nothing that can be waited for.
  func add(_ doorbell: Int32, of instance: Int? = nil) -> Bool {
    watch(
      doorbell, EPOLLIN.rawValue | EPOLLET.rawValue,
      instance.map { Self.firstInstanceMark + UInt64($0) } ?? 0)
  }

  /// Before the doorbell is closed: what others hold open stays in the set otherwise.
  func remove(_ doorbell: Int32) {
    var event = epoll_event()
    epoll_ctl(descriptor, EPOLL_CTL_DEL, doorbell, &event)
  }

  private func watch(_ watched: Int32, _ events: UInt32, _ mark: UInt64) -> Bool {
    var event = epoll_event(events: events, data: epoll_data_t(u64: mark))
    return epoll_ctl(descriptor, EPOLL_CTL_ADD, watched, &event) == 0
  }

  /// Wakes the thread from within this process.
  func ring() { signal(own) }

  /// Sleeps until something is rung, but not for ever: an interrupt that a device owes and never sends must not end all.
  /// - Parameter rings: gets a bit for each instance whose doorbell has rung.
  /// - Returns: whether there is an interrupt to take.
  func wait(milliseconds limit: Int32, _ rings: inout UInt64) -> Bool {
    var events = InlineArray<64, epoll_event>(repeating: epoll_event())
    var span = events.mutableSpan
    return span.withUnsafeMutableBufferPointer { events in
      let count = epoll_wait(descriptor, events.baseAddress, 64, limit)
      var isInterrupted = false
      for event in events.prefix(max(0, Int(count))) {
        switch event.data.u64 {
        case 0: break
        case Self.interruptMark: isInterrupted = true
        case let mark: rings |= 1 << ((mark - Self.firstInstanceMark) & 63)
        }
      }
      return isInterrupted
    }
  }
}

/// What an instance rings to wake one queue thread. Any thread.
struct HostDoorbell: Sendable {
  let instance: Int
  let descriptor: Int32
  let wakes: WakeSet

  /// - Returns: false where it is nothing that can be waited for.
  @discardableResult @inline(never)
  func listen() -> Bool { wakes.add(descriptor, of: instance) }

  /// From now on it wakes nobody.
  @inline(never)
  func silence() { wakes.remove(descriptor) }
}
