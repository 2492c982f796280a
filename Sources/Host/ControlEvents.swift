import Glibc
import Trace

/// What the control thread of a host sleeps on.
struct ControlEvents {
  let supervisor: Int32
  /// Readable when a queue thread has failed.
  let failed: Int32
  let configurationInterrupt: Int32
  /// Readable when a queue thread has done or noticed something about an instance; -1 where there is one instance only.
  var instances: Int32 = -1
  /// The socket of a device that another process plays, which hangs up when that one goes; -1 for a kernel device.
  var device: Int32
  /// Is told of each interrupt; nil where nothing is recorded.
  let recording: RecordingFunction?
  var look = Look.eachSecond

  struct Ready {
    var supervisor = false
    var instances = false
  }

  /// How often a device is looked at that has not said anything. A look at a device behind a socket is some messages, and
  /// each of them some system calls. The raw value is in milliseconds.
  enum Look: Int32 {
    /// Changes come without an interrupt, or the end of the device does not show by itself.
    case eachSecond = 1000
    /// The end shows by hang-up; changes are rare and come without an interrupt.
    case rarely = 10_000
    /// Changes come with an interrupt, the end by hang-up: what is left is a process that hangs.
    case eachMinute = 60_000
  }

  /// Sleeps until there is one, or a look at the device is due.
  func wait() -> Ready {
    var entries = [supervisor, failed, configurationInterrupt, instances].map {
      pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
    }
    // What the server has to say is read by whoever asked; only its end is an event.
    entries.append(pollfd(fd: device, events: 0, revents: 0))
    guard poll(&entries, UInt(entries.count), look.rawValue) > 0 else { return Ready() }
    var value: UInt64 = 0
    if entries[2].revents != 0, read(configurationInterrupt, &value, 8) == 8 {
      recording?.interruptTaken(configurationInterrupt)
    }
    if entries[3].revents != 0 { _ = read(instances, &value, 8) }
    return Ready(supervisor: entries[0].revents != 0, instances: entries[3].revents != 0)
  }
}
