import CLinux
import Glibc
import Trace

/// What a host waits on.
struct HostDescriptors {
  let supervisor: Int32
  /// Rung by the stack instance.
  let doorbell: Int32
  let configurationInterrupt: Int32
  let queueInterrupts: [Int32]
  /// The socket of a device that another process plays, which becomes readable when that one goes; -1 for a kernel
  /// device.
  var device: Int32
  /// Is told of each interrupt; nil where nothing is recorded.
  let recording: RecordingFunction?

  struct Ready {
    var supervisor = false
    var device = false
  }

  /// Waits for any of them, at most so long.
  @discardableResult
  func wait(milliseconds: Int32) -> Ready {
    var entries = [supervisor, doorbell, configurationInterrupt].map(entry)
    entries += queueInterrupts.map(entry)
    if device >= 0 { entries.append(entry(device)) }
    let count = Glibc.poll(&entries, UInt(entries.count), milliseconds)
    guard count > 0 else { return Ready() }
    return Ready(
      supervisor: entries[0].revents != 0,
      device: device >= 0 && entries[entries.count - 1].revents != 0)
  }

  func poll() -> Ready { wait(milliseconds: 0) }

  /// Empties the eventfds.
  /// - Returns: how often each kind was signalled since the last call.
  func drainInterrupts() -> (queues: UInt64, configuration: UInt64) {
    var queues: UInt64 = 0
    for descriptor in queueInterrupts { queues += drain(descriptor) }
    _ = drain(doorbell)
    return (queues, drain(configurationInterrupt))
  }

  private func drain(_ descriptor: Int32) -> UInt64 {
    var value: UInt64 = 0
    guard read(descriptor, &value, 8) == 8 else { return 0 }
    recording?.interruptTaken(descriptor)
    return value
  }

  private func entry(_ descriptor: Int32) -> pollfd {
    pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  }
}
