import CLinux
import Channel
import Glibc
import Memory

/// One stage as the control thread knows it: planned, and while its process runs, with a channel. What the queue threads have
/// of it lives until they have closed it.
final class PlannedStage {
  let place: Int
  let name: String
  /// nil where its process does not run.
  var channel: StageChannel?
  /// The supervisor has been told that it was closed.
  var isClosed = false

  init(place: Int, name: String) {
    self.place = place
    self.name = name
  }
}

/// The host's side of a running stage's channel, with a port for each queue.
final class StageChannel {
  private let memory: ChannelMemory
  private let guardSlot: Int32
  private var doorbell: Int32 = -1
  private var hostDoorbells: [(descriptor: Int32, wakes: WakeSet)] = []
  private(set) var ports: [UnsafeMutablePointer<StagePort>] = []

  /// - Parameters:
  ///   - memory: mapped already.
  ///   - descriptors: what wakes the stage, then, for each queue, what it rings. They stay the caller's.
  /// - Returns: nil where some are not what they should be.
  init?(
    _ memory: consuming ChannelMemory, place: Int, _ descriptors: ArraySlice<Int32>,
    _ wakes: [WakeSet]
  ) {
    let bytes = memory.bytes
    guardSlot = linux_bus_guard_add(bytes.baseAddress!, bytes.count)
    self.memory = memory
    let own = descriptors.map { linux_fcntl($0, F_DUPFD_CLOEXEC, 3) }
    doorbell = own.first ?? -1
    for (descriptor, wake) in zip(own.dropFirst(), wakes) where descriptor >= 0 {
      hostDoorbells.append((descriptor, wake))
    }
    guard doorbell >= 0, hostDoorbells.count == wakes.count, guardSlot >= 0,
      hostDoorbells.allSatisfy({ $0.wakes.add($0.descriptor) })
    else { return nil }
    for queue in wakes.indices {
      let port = UnsafeMutablePointer<StagePort>.allocate(capacity: 1)
      port.initialize(
        to: StagePort(
          place: place,
          channel: HostEnd(self.memory, queue: queue, instanceDoorbell: doorbell),
          end: self.memory.end))
      ports.append(port)
    }
  }

  deinit {
    for port in ports {
      port.deinitialize(count: 1)
      port.deallocate()
    }
    if guardSlot >= 0 { linux_bus_guard_remove(guardSlot) }
    for doorbell in hostDoorbells {
      doorbell.wakes.remove(doorbell.descriptor)
      close(doorbell.descriptor)
    }
    if doorbell >= 0 { close(doorbell) }
  }
}
