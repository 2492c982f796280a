import Glibc
import Trace

/// What the control thread of a host sleeps on.
struct ControlEvents {
  let supervisor: Int32
  /// Readable when a queue thread has failed.
  let failed: Int32
  let configurationInterrupt: Int32
  /// The socket of a device that another process plays, which hangs up when that one goes; -1 for a kernel device.
  var device: Int32
  /// Is told of each interrupt; nil where nothing is recorded.
  let recording: RecordingFunction?

  struct Ready {
    var supervisor = false
  }

  /// Sleeps until there is one, or for a second: then the device is looked at all the same, since not every change of
  /// every device comes with an interrupt.
  func wait() -> Ready {
    var entries = [supervisor, failed, configurationInterrupt].map {
      pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
    }
    // What the server has to say is read by whoever asked; only its end is an event.
    entries.append(pollfd(fd: device, events: 0, revents: 0))
    guard poll(&entries, UInt(entries.count), 1000) > 0 else { return Ready() }
    var value: UInt64 = 0
    if entries[2].revents != 0, read(configurationInterrupt, &value, 8) == 8 {
      recording?.interruptTaken(configurationInterrupt)
    }
    return Ready(supervisor: entries[0].revents != 0)
  }
}
