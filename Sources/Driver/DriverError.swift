import PCI
import Rings

/// Why a driver gave up. One line each, with the facts.
public enum DriverError: Error, Sendable, Equatable {
  case pci(PCIError)
  /// The device broke the ring's contract.
  case ring(queue: Int, RingError)
  /// The device broke the contract of a ring that is no virtqueue: what it wrote, and what it may write.
  case deviceViolation(queue: Int, String)
  /// The device asks to be reset (virtio 1.2, 2.1.1).
  case deviceNeedsReset
  /// The device no longer answers: its registers read as all ones.
  case deviceGone
  /// The device cannot be driven: what is missing or wrong with it, and what to do.
  case unsupported(String)
  case resetTimeout
  case commandFailed(String)
  /// The zone for rings is too small, in bytes.
  case outOfRingMemory(needed: Int)
}

extension DriverError: CustomStringConvertible {
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
