import CLinux
import EmulatedPCI
import Glibc

extension VFIOUserServer {
  /// Serves until `stop` becomes readable: looks for work by itself while there is some and for a moment after, then
  /// sleeps until the client, the wire or a new client has some.
  /// - Parameters:
  ///   - wire: becomes readable with a frame; -1 for none.
  ///   - stop: ends the run, such as a signalfd.
  ///   - idleNanoseconds: how long it looks for more work before it sleeps.
  ///   - publish: called now and then, and before it sleeps, to show what the device has counted.
  /// - Returns: 0, or the errno of epoll.
  public func run(
    _ model: some PollingModel, wire: Int32, stop: Int32, idleNanoseconds: UInt64 = 30_000,
    publish: () -> Void = {}
  ) -> Int32 {
    var set = WaitSet()
    guard set.isOpen else { return errno }
    // The wire by its edges: frames that wait because the driver has no buffers must not keep the loop awake.
    for (descriptor, events) in [
      (listening, EPOLLIN.rawValue), (stop, EPOLLIN.rawValue),
      (wire, EPOLLIN.rawValue | EPOLLET.rawValue),
    ] where descriptor >= 0 {
      let result = set.add(descriptor, events)
      guard result == 0 else { return result }
    }
    var watched: Int32 = -1
    var busyUntil: UInt64 = 0
    var nextPublish: UInt64 = 0
    model.wake()
    while true {
      // A client is looked at between bursts: its messages are few once its rings run.
      if service() { busyUntil = monotonic_nanoseconds() + idleNanoseconds }
      let client = self.client
      if client != watched {
        // The old one left the set when it was closed.
        if client >= 0 {
          let result = set.add(client, EPOLLIN.rawValue)
          guard result == 0 else { return result }
        }
        watched = client
        // While a client is served, further ones wait in the listening socket.
        set.setListening(listening, client < 0)
      }
      var worked = false
      for _ in 0..<16 {
        guard model.step() else { break }
        worked = true
      }
      let time = monotonic_nanoseconds()
      if time >= nextPublish {
        publish()
        nextPublish = time + 50_000_000
      }
      if worked { busyUntil = time + idleNanoseconds }
      if time < busyUntil {
        if !worked { cpu_pause() }
        if set.wait(milliseconds: 0, for: stop) { return 0 }
        continue
      }
      if !model.prepareToSleep() {
        model.wake()
        busyUntil = time + idleNanoseconds
        continue
      }
      publish()
      if set.wait(milliseconds: waitLimit, for: stop) { return 0 }
      model.wake()
      busyUntil = monotonic_nanoseconds() + idleNanoseconds
    }
  }
}

/// An epoll descriptor.
struct WaitSet: ~Copyable {
  private let descriptor: Int32

  init() { descriptor = epoll_create1(Int32(EPOLL_CLOEXEC)) }

  deinit { if descriptor >= 0 { close(descriptor) } }

  var isOpen: Bool { descriptor >= 0 }

  mutating func add(_ watched: Int32, _ events: UInt32) -> Int32 {
    var event = epoll_event(events: events, data: epoll_data_t(fd: watched))
    return epoll_ctl(descriptor, EPOLL_CTL_ADD, watched, &event) == 0 ? 0 : errno
  }

  mutating func setListening(_ watched: Int32, _ on: Bool) {
    var event = epoll_event(
      events: on ? EPOLLIN.rawValue : 0, data: epoll_data_t(fd: watched))
    epoll_ctl(descriptor, EPOLL_CTL_MOD, watched, &event)
  }

  /// - Returns: whether `wanted` became readable.
  func wait(milliseconds: Int32, for wanted: Int32) -> Bool {
    withUnsafeTemporaryAllocation(of: epoll_event.self, capacity: 4) { events in
      let count = epoll_wait(descriptor, events.baseAddress, 4, milliseconds)
      return count > 0 && events[0..<Int(count)].contains { $0.data.fd == wanted }
    }
  }
}
