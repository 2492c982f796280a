import Channel
import Confinement
import Driver
import Glibc
import Memory
import PCI

/// Why a driver host ends. One line each.
public enum HostError: Error {
  case arguments(String)
  case memory(String)
  case confinement(ConfinementError)
  /// A thread that cannot be made, and the kernel's reason.
  case thread(String, errno: Int32)
  /// A core that a queue thread cannot be bound to, and the kernel's reason.
  case core(Int, errno: Int32)
  case pci(PCIError)
  case driver(DriverError)
  /// What the host before has left of a queue.
  case record(queue: Int, RecordError)
  /// The stack instance broke the channel's rules: it is the offender, not the device.
  case instance(InstanceOffence)
}

/// What a stack instance did.
public enum InstanceOffence: Error {
  case channel(ChannelError)
  case ledger(LedgerError)
  case outsideTransmitPart(position: UInt64, length: UInt32)
  case badOffload
  case aggregate(AggregateError)
  /// Another aggregate with this tag has not been completed yet.
  case aggregateTagInUse(UInt16)
}

extension HostError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .arguments(let reason), .memory(let reason): reason
    case .confinement(let error): error.description
    case .thread(let name, let errno):
      "cannot make the thread \(name): \(String(cString: strerror(errno)))"
    case .core(let core, let errno):
      "cannot run on core \(core): \(String(cString: strerror(errno)))"
    case .pci(let error): error.description
    case .driver(let error): error.description
    case .record(let queue, let error): "queue \(queue): \(error)"
    case .instance(let offence): "the stack instance broke the channel's rules: \(offence)"
    }
  }
}

extension HostError {
  /// How it is said to the supervisor: whether another host could go on with the device, once that has been reset.
  var word: String {
    switch self {
    case .driver(.unsupported): "error"
    // What there was too little of there may be enough of the next time.
    case .driver, .pci, .memory, .confinement, .thread: "fault"
    case .arguments, .core, .record, .instance: "error"
    }
  }
}

extension InstanceOffence: CustomStringConvertible {
  public var description: String {
    switch self {
    case .channel(let error): "\(error)"
    case .ledger(let error): "\(error)"
    case .outsideTransmitPart(let position, let length):
      "\(length) bytes at \(position) to be sent lie outside its transmit part"
    case .badOffload: "offload metadata of a kind that does not exist, or where none may stand"
    case .aggregate(let error): "\(error)"
    case .aggregateTagInUse(let tag): "two aggregates are under way with tag \(tag)"
    }
  }
}
