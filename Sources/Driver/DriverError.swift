import PCI
import Rings

/// Why a driver gave up. Carries the facts; `description` is one line of them, with the remedy where there is one.
public enum DriverError: Error, Sendable, Equatable {
  /// The way to the function failed.
  case pci(PCIError)
  /// The device broke the contract of a ring. `queue` counts as the device does; -1 is a queue for commands.
  case ring(queue: Int, RingError)
  /// The device broke the contract of a ring that is no virtqueue: what it wrote, and what it may write.
  case deviceViolation(queue: Int, String)
  /// The device asks to be reset (virtio 1.2, 2.1.1).
  case deviceNeedsReset
  /// The device no longer answers: its registers read as all ones.
  case deviceGone
  /// The device cannot be driven: what is missing or wrong with it, and what to do.
  case unsupported(String)
  /// The device did not finish a reset within its limit. It may still do DMA: bus mastering is to be turned off.
  case resetTimeout
  /// The device refused a command, did not answer it in time, or takes none: which one, and how.
  case commandFailed(String)
  /// The zone for rings is too small: how many bytes more were wanted at once.
  case outOfRingMemory(needed: Int)
}

extension DriverError {
  /// Does something to a function; what goes wrong is the driver's error ``pci(_:)``.
  public static func passing<R>(_ body: () throws(PCIError) -> R) throws(DriverError) -> R {
    do throws(PCIError) {
      return try body()
    } catch {
      throw .pci(error)
    }
  }
}

extension DriverError: CustomStringConvertible {
  /// One line for people.
  public var description: String {
    switch self {
    case .pci(let error): error.description
    case .ring(let queue, let error): "queue \(queue): \(error)"
    case .deviceViolation(let queue, let what): "queue \(queue): \(what)"
    case .deviceNeedsReset: "the device asks to be reset"
    case .deviceGone: "the device no longer answers"
    case .unsupported(let what): what
    case .resetTimeout: "the device did not finish its reset"
    case .commandFailed(let what): "the device refused a command: \(what)"
    case .outOfRingMemory(let needed): "\(needed) bytes more are needed for rings"
    }
  }
}
