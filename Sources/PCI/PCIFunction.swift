import Glibc

/// A PCI function as a driver sees it. How it is reached (kernel VFIO, vfio-user, a model in this process) does not
/// show. DMA memory is given to the driver already mapped; a driver cannot map any itself.
///
/// Control path only, from one thread; register accesses go through ``RegisterWindow``.
public protocol PCIFunction: AnyObject {
  /// A name for messages, such as "0000:00:03.0" or a socket's path.
  var name: String { get }

  /// Configuration space, little-endian values. `offset` is aligned to `width`.
  func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32
  func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth) throws(PCIError)

  /// The region behind a base address register.
  /// - Parameter bar: 0 to 5.
  func openRegion(bar: Int) throws(PCIError) -> RegisterRegion

  /// Kind and number of interrupt vectors that the function offers, MSI-X first.
  var interrupts: InterruptCapability { get throws(PCIError) }

  /// Signals `eventfds[i]` for vector i from now on, and unmasks it. -1 leaves a vector without a signal.
  func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError)
  func disableInterrupts(_ kind: InterruptKind) throws(PCIError)
  /// INTx is masked when it fires; this lets the next one through.
  func unmaskINTx() throws(PCIError)

  /// Function-level reset where the function or the way to it has one: ``PCIError/resetUnsupported`` otherwise.
  func reset() throws(PCIError)
}

public enum InterruptKind: UInt32, Sendable {
  case intx = 0
  case msi = 1
  case msix = 2
}

public struct InterruptCapability: Sendable, Equatable {
  public var kind: InterruptKind
  public var vectors: Int
  public init(kind: InterruptKind, vectors: Int) {
    self.kind = kind
    self.vectors = vectors
  }
}

public enum RegisterWidth: Int, Sendable {
  case byte = 1
  case word = 2
  case dword = 4
}

/// What goes wrong on the way to a PCI function. Carries the facts; `description` is one line with the remedy where
/// there is one.
public enum PCIError: Error, Equatable, Sendable {
  /// The function, or the process that plays it, no longer answers.
  case gone(String)
  /// A system call on the function failed.
  case system(call: String, errno: Int32)
  /// The kernel may not lock as much memory for the device as was to be mapped. In bytes.
  case lockedMemory(byteCount: UInt64, limit: UInt64)
  case noRegion(bar: Int)
  /// A window that does not lie inside its region.
  case outsideRegion(bar: Int, offset: UInt64, byteCount: UInt64, regionByteCount: UInt64)
  case interruptsUnsupported(kind: InterruptKind, vectors: Int)
  case resetUnsupported
  /// The function's configuration space breaks the specification (PCI Local Bus 3.0, 6.7, or PCI Express).
  case malformedCapability(at: Int, reason: String)
  case missingCapability(String)
  /// No process that plays a function listens there.
  case unreachable(path: String, errno: Int32)
  /// The process that plays the function broke the protocol that it is reached by.
  case peer(String, reason: String)
}

extension PCIError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .gone(let name): "device \(name) no longer answers"
    case .system(let call, let errno): "\(call) failed: \(String(cString: strerror(errno)))"
    case .lockedMemory(let byteCount, let limit):
      "\(byteCount) bytes cannot be locked for the device, the limit being \(limit == .max ? "the memory that there is" : "\(limit)"): `ulimit -l unlimited` as root, or LimitMEMLOCK=infinity in the systemd unit"
    case .noRegion(let bar): "the function has no memory region behind BAR \(bar)"
    case .outsideRegion(let bar, let offset, let byteCount, let region):
      "\(byteCount) bytes at offset \(offset) do not lie inside BAR \(bar) (\(region) bytes)"
    case .interruptsUnsupported(let kind, let vectors):
      "the function does not offer \(vectors) \(kind) vectors"
    case .resetUnsupported: "the function cannot be reset by itself"
    case .malformedCapability(let at, let reason): "capability at offset \(at): \(reason)"
    case .missingCapability(let name): "the function lacks its \(name) capability"
    case .unreachable(let path, let errno):
      "no vfio-user server can be reached at \(path) (\(String(cString: strerror(errno)))): start one (`martlet serve virtio-net --socket \(path) --wire …`), or name another socket"
    case .peer(let name, let reason): "\(name): \(reason)"
    }
  }
}
