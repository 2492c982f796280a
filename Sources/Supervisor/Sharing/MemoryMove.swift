import Channel
import Commands

/// A change of an instance's size that is under way. An instance has one at a time.
struct MemoryMove {
  /// Bytes that the arena is to have.
  let target: Int
  var stage: Stage
  let asker: MemoryAsker
  /// When the stage has to be over, in milliseconds of the monotonic clock; nil for never.
  var deadline: UInt64?

  enum Stage {
    /// Others have to give memory back first.
    case waiting
    /// The device can read the extent; the driver host has been told and has not answered.
    case extending(MemoryExtent)
    /// The instance has been asked to let go.
    case asking
    /// It has been asked for what is free now.
    case lastCall
    /// The driver host has been told that the arena ends there.
    case withdrawing(to: Int)
    /// The driver host tells the device.
    case unmapping(to: Int)
  }

  /// The instance has not said yet what it gives up.
  var isAsking: Bool {
    switch stage {
    case .asking, .lastCall: true
    default: false
    }
  }

  var isWaiting: Bool { if case .waiting = stage { true } else { false } }
  var isGrowth: Bool {
    switch stage {
    case .waiting, .extending: true
    default: false
    }
  }
}

/// Who hears what has become of a change.
enum MemoryAsker {
  case nobody
  case command(CommandToken)
  case administrator(PeerConnection)
}

/// Why an instance does not get memory, or nobody gets its.
enum MemoryRefusal: String {
  case busy = "it is being moved already"
  case notRunning = "it does not run"
  case maximum = "the instance may not have as much"
  case exhausted = "nobody has any to give"
  case pressure = "the system is short of memory"
  case failed = "it cannot be had"
  case inUse = "the instance does not let go of it"

  /// As a command's completion says it.
  var status: CommandStatus {
    switch self {
    case .busy, .notRunning: .busy
    case .maximum: .denied
    case .exhausted, .pressure: .exhausted
    case .failed, .inUse: .failed
    }
  }
}
