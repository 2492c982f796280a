import CLinux
import Glibc
import Virtio
import VirtioNetDevice

/// Serves a virtio network device to vhost-user front-ends, one at a time: when one leaves, the device is reset and the
/// next one is taken. A front-end is not trusted. Single-threaded: it does something only when ``service()`` or
/// ``run(wire:stop:idleNanoseconds:publish:)`` is called.
public final class VhostUserServer {
  public let model: VirtioNetDevice
  /// Becomes readable when a front-end connects.
  public let listening: Int32
  private var session: FrontEndSession?
  private var replacedMemory: UInt32
  public private(set) var refusals = FrontEndRefusals()
  /// Front-ends that were accepted.
  public private(set) var frontEnds: UInt64 = 0
  private var earlierRequests: UInt64 = 0
  public var requests: UInt64 { earlierRequests + (session?.requests ?? 0) }

  /// Features that a model is to be made without: its control queue, an IOMMU, and the reset of a single ring.
  public static let notCarried: VirtioFeatures = [.controlQueue, .accessPlatform, .ringReset]

  /// - Parameters:
  ///   - model: made without what vhost-user cannot carry (``notCarried``).
  ///   - listening: a UNIX stream socket that listens; stays the caller's.
  public init(model: VirtioNetDevice, listening: Int32) {
    self.model = model
    self.listening = listening
    replacedMemory = linux_bus_guard_replaced()
    _ = linux_fcntl(
      listening, F_SETFL, Int(linux_fcntl(listening, F_GETFL, 0)) | Int(O_NONBLOCK))
  }

  deinit { end() }

  /// Takes a front-end where there is none, and works off a bounded number of its messages.
  /// - Returns: whether there was anything to do.
  @discardableResult
  public func service() -> Bool {
    if session == nil { accept() }
    guard let session else { return false }
    do throws(FrontEndSession.End) {
      let done = try session.service(limit: 64, &refusals)
      let replaced = linux_bus_guard_replaced()
      if replaced != replacedMemory {
        replacedMemory = replaced
        // It may have been another server's front-end.
        if session.memory.hasLostMemory { throw FrontEndSession.End.refused(.truncatedMemory) }
      }
      return done > 0
    } catch {
      if case .refused(let reason) = error { refusals.count(reason) }
      end()
      return true
    }
  }

  private func accept() {
    let descriptor = linux_accept(listening)
    guard descriptor >= 0 else { return }
    frontEnds += 1
    session = FrontEndSession(descriptor: descriptor, model: model)
  }

  /// Ends the connection with the front-end, if there is one, and resets the device.
  public func end() {
    guard let session else { return }
    earlierRequests += session.requests
    session.end()
    self.session = nil
  }

  /// Serves until `stop` becomes readable: looks for work by itself while there is some and for a moment after, then
  /// sleeps until the front-end, one of its kicks, the wire or a new front-end has some.
  /// - Parameters:
  ///   - wire: becomes readable with a frame; -1 for none.
  ///   - stop: ends the run, such as a signalfd.
  ///   - idleNanoseconds: how long it looks for more work before it sleeps.
  ///   - publish: called now and then, and before it sleeps, to show what the device has counted.
  /// - Returns: 0, or the errno of poll.
  public func run(
    wire: Int32, stop: Int32, idleNanoseconds: UInt64 = 30_000, publish: () -> Void = {}
  ) -> Int32 {
    var busyUntil: UInt64 = 0
    var nextPublish: UInt64 = 0
    while true {
      var worked = service()
      for _ in 0..<16 {
        guard model.step() else { break }
        worked = true
      }
      let time = monotonic_nanoseconds()
      if time >= nextPublish {
        publish()
        nextPublish = time + 50_000_000
        if isReadable(stop) { return 0 }
      }
      if worked { busyUntil = time + idleNanoseconds }
      if time < busyUntil {
        if !worked { cpu_pause() }
        continue
      }
      if !model.prepareToSleep() {
        model.wake()
        busyUntil = time + idleNanoseconds
        continue
      }
      publish()
      if let error = sleep(wire, stop) { return error }
      if isReadable(stop) { return 0 }
      model.wake()
      busyUntil = monotonic_nanoseconds() + idleNanoseconds
    }
  }

  /// - Returns: an errno, or nil.
  private func sleep(_ wire: Int32, _ stop: Int32) -> Int32? {
    var watched = [stop, session?.stream.descriptor ?? listening, session?.kicks.descriptor ?? -1]
    // Frames that wait because the driver has no buffers must not keep the loop awake.
    if !model.isOutOfBuffers { watched.append(wire) }
    var entries = watched.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    let limit: Int32 = session?.isSilent == true ? 500 : -1
    if poll(&entries, UInt(entries.count), limit) < 0, errno != EINTR { return errno }
    session?.kicks.drain()
    return nil
  }

  private func isReadable(_ descriptor: Int32) -> Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, 0) > 0
  }
}
