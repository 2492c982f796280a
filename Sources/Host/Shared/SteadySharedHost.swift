import CLinux
import Channel
import Driver
import Glibc
import Memory

/// A device's first queue pair and instances that share it, in one thread and without a supervisor; nobody but the caller
/// turns it. For measurements: what a packet meets here is what it meets in a host process.
package struct SteadySharedHost<Device: NetworkDriver & ~Copyable>: ~Copyable {
  @usableFromInline let paths: PathArray<SharedPath<Device.QueuePair>>
  private let control: InstanceControl
  private let interrupt: Int32

  /// - Parameters:
  ///   - device: its memory is the window.
  ///   - window: the host's own arena is mapped at its start.
  ///   - hostArenaBytes: of that arena.
  ///   - receiveBytes: how many of them are for what is received.
  ///   - capture: memory of captures, which is closed.
  package init(
    _ device: inout Device, window: consuming MemoryWindow, hostArenaBytes: Int, receiveBytes: Int,
    capture: (area: Int32, readers: Int32)? = nil
  ) throws {
    // Nobody waits for its words, and nobody is ever woken.
    interrupt = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
    control = InstanceControl(
      plan: SharedPlan(Device.self, device.interface, hostArenaBytes: hostArenaBytes),
      window: window, wakes: [try WakeSet(interrupt: interrupt)], changed: -1,
      statistics: HostStatistics(
        page: try CounterPage(
          capacity: HostStatistics.capacity(queues: 1, isShared: true),
          histograms: HostStatistics.histograms(queues: 1)),
        queues: 1, device: [], isShared: true), supervisor: SupervisorSocket(descriptor: -1),
      captures: try capture.map { try HostCaptures(area: $0.area, readers: $0.readers, queues: 1) })
    paths = control.makePaths(&device, receiveBytes: receiveBytes)
    paths[0].times = control.statistics.times(queue: 0)
  }

  deinit { close(interrupt) }

  /// Asks for what a supervisor asks for: `attach`, `claim`, `rules` and `stage`.
  /// - Parameter descriptors: the host's from now on.
  /// - Returns: whether it was done.
  package func ask(_ text: String, _ descriptors: [Int32] = []) -> Bool {
    let before = sizes
    control.take(ControlMessage(text), descriptors)
    control.service()
    if paths[0].hasUpdate { paths[0].takeUpdate() }
    control.service()
    return before != sizes
  }

  /// How much there is of what can be asked for.
  private var sizes: [Int] {
    [
      control.instances.count, control.claims.count, control.stages.count,
      control.rules?.set.rules.count ?? 0,
    ]
  }

  /// Takes what is to be captured.
  package func takeUpdate() { if paths[0].hasUpdate { paths[0].takeUpdate() } }

  @inlinable @inline(__always)
  package func turn() throws(HostError) -> Bool { try paths[0].turn() }

  /// As ``turn()``, with statistics as a host process has them.
  /// - Parameter number: of the turn.
  @inlinable @inline(__always)
  package func turn(_ number: UInt32) throws(HostError) -> Bool { try paths[0].turn(number) }
}
