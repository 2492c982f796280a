import Glibc

/// A PCI function as a driver sees it. How it is reached (kernel VFIO, vfio-user, a model in this process) does not
/// show. DMA memory is given to the driver already mapped; a driver cannot map any itself.
///
/// Control path only, from one thread; register accesses go through ``RegisterWindow``. Every call may fail with
/// ``PCIError/gone(_:)`` where the function or the process that plays it is no more.
public protocol PCIFunction: AnyObject {
  /// A name for messages, such as "0000:00:03.0" or a socket's path.
  var name: String { get }

  /// Reads configuration space.
  /// - Parameters:
  ///   - offset: bytes from its start, a multiple of the width.
  ///   - width: of the access, as the device sees it.
  /// - Returns: the value, as a number: configuration space is little-endian. All ones where nothing answers.
  func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32
  /// Writes configuration space. What the way to the function reserves for itself, such as where interrupts are sent,
  /// stays as it is.
  func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth) throws(PCIError)

  /// The region behind a base address register.
  /// - Parameter bar: 0 to 5.
  /// - Throws: ``PCIError/noRegion(bar:)`` where there is no memory behind it.
  func openRegion(bar: Int) throws(PCIError) -> RegisterRegion

  /// Kind and number of interrupt vectors that the function offers, MSI-X first.
  var interrupts: InterruptCapability { get throws(PCIError) }

  /// Signals `eventfds[i]` for vector i from now on, and unmasks it. -1 leaves a vector without a signal. The eventfds
  /// stay the caller's, which outlive ``disableInterrupts(_:)``.
  /// - Throws: ``PCIError/interruptsUnsupported(kind:vectors:)`` where the function has not as many.
  func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError)
  /// No vector of that kind is signalled any more.
  func disableInterrupts(_ kind: InterruptKind) throws(PCIError)
  /// INTx is masked when it fires; this lets the next one through.
  func unmaskINTx() throws(PCIError)

  /// Function-level reset where the function or the way to it has one: ``PCIError/resetUnsupported`` otherwise.
  func reset() throws(PCIError)
}

/// How a function signals. Raw values are the kernel's (VFIO_PCI_*_IRQ_INDEX).
public enum InterruptKind: UInt32, Sendable {
  /// The one line, which is masked when it fires.
  case intx = 0
  /// Messages, with a few vectors (PCI Local Bus 3.0, 6.8.1).
  case msi = 1
  /// Messages, with up to 2048 vectors, each with its own mask (PCI Local Bus 3.0, 6.8.2).
  case msix = 2
}

/// The best kind of interrupts that a function has, and how many.
public struct InterruptCapability: Sendable, Equatable {
  /// MSI-X before MSI before the line.
  public var kind: InterruptKind
  /// Vectors of that kind, at least 1.
  public var vectors: Int
  /// - Parameters:
  ///   - kind: the best kind.
  ///   - vectors: how many of it.
  public init(kind: InterruptKind, vectors: Int) {
    self.kind = kind
    self.vectors = vectors
  }
}

/// Width of an access, in bytes as raw value.
public enum RegisterWidth: Int, Sendable {
  /// 8 bits.
  case byte = 1
  /// 16 bits.
  case word = 2
  /// 32 bits.
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
  /// There is no memory behind this base address register.
  case noRegion(bar: Int)
  /// A window that does not lie inside its region, in bytes.
  case outsideRegion(bar: Int, offset: UInt64, byteCount: UInt64, regionByteCount: UInt64)
  /// The function has not as many vectors of this kind.
  case interruptsUnsupported(kind: InterruptKind, vectors: Int)
  /// The function cannot be reset by itself.
  case resetUnsupported
  /// The function's configuration space breaks the specification (PCI Local Bus 3.0, 6.7, or PCI Express).
  case malformedCapability(at: Int, reason: String)
  /// The function lacks a capability that its driver cannot do without.
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
