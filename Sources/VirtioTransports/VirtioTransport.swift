import Driver
import PCI
import Virtio

/// How a virtio driver reaches its device (virtio 1.2, chapter 4). Control path, one thread; the doorbell alone is on the
/// data path, and is a plain value.
public protocol VirtioTransport: AnyObject {
  /// Reads the device's features, once.
  var deviceFeatures: VirtioFeatures { get }
  /// Tells the device which of its features the driver uses.
  func accept(_ features: VirtioFeatures)

  /// The device's status, read now.
  var status: VirtioStatus { get }
  /// Writes the device's status.
  func setStatus(_ status: VirtioStatus)
  /// Writes 0 to the status and waits until it reads 0.
  func reset() throws(DriverError)

  /// Virtqueues that the device has.
  var queueCount: Int { get }
  /// The largest size of a queue; 0 where it does not exist.
  func maximumSize(ofQueue queue: Int) -> Int
  /// Programs and enables a queue.
  /// - Parameters:
  ///   - queue: its number.
  ///   - ring: where the driver has laid it out.
  ///   - vector: the interrupt vector that the device signals, or `VirtioPCI.noVector`.
  func enable(_ queue: Int, _ ring: VirtqueueAddresses, vector: UInt16) throws(DriverError)
    -> QueueDoorbell
  /// Resets one queue (2.6.1), where the device can.
  func resetQueue(_ queue: Int) throws(DriverError)
  /// The interrupt vector of configuration changes.
  func setConfigurationVector(_ vector: UInt16) throws(DriverError)

  /// Whether queue pairs are switched on as they are enabled, without a command (5.1.6.5.5): MQ then needs no control
  /// queue.
  var switchesQueuePairs: Bool { get }

  /// Device configuration, read until its generation stays the same (2.5.1).
  func readConfiguration<R>(_ body: (RegisterWindow) -> R) throws(DriverError) -> R

  /// The function behind the transport: its name, its interrupts, its right to DMA.
  var function: any PCIFunction { get }
  /// Reads and so clears the interrupt status (4.1.4.5): only where interrupts are INTx.
  func readInterruptStatus() -> UInt8
}

extension VirtioTransport {
  /// By command, as the specification has it.
  public var switchesQueuePairs: Bool { false }
}

/// A function that is reached by a virtio transport of its own, and not by the registers of virtio over PCI.
public protocol VirtioFunction: PCIFunction {
  /// The way to the device, from its reset on.
  func makeTransport() throws(DriverError) -> any VirtioTransport
}

/// Where the three parts of a virtqueue lie, as the device sees them (2.6), in bytes.
public struct VirtqueueAddresses: Sendable {
  /// Descriptors.
  public var size: Int
  /// The descriptor table, or the packed ring.
  public var descriptorArea: UInt64
  /// The available ring, or what the driver says of events.
  public var driverArea: UInt64
  /// The used ring, or what the device says of events.
  public var deviceArea: UInt64

  /// - Parameters:
  ///   - size: descriptors.
  ///   - descriptorArea: the descriptor table, or the packed ring.
  ///   - driverArea: the available ring, or what the driver says of events.
  ///   - deviceArea: the used ring, or what the device says of events.
  public init(size: Int, descriptorArea: UInt64, driverArea: UInt64, deviceArea: UInt64) {
    self.size = size
    self.descriptorArea = descriptorArea
    self.driverArea = driverArea
    self.deviceArea = deviceArea
  }
}

/// Where and what a queue's notification is written (4.1.5.2).
@frozen
public struct QueueDoorbell {
  @usableFromInline let window: RegisterWindow
  @usableFromInline let queue: UInt16

  /// - Parameters:
  ///   - window: two bytes that take the queue's number.
  ///   - queue: that number.
  public init(window: RegisterWindow, queue: UInt16) {
    self.window = window
    self.queue = queue
  }

  /// Tells the device that there is something new in the queue.
  @inlinable @inline(__always) @_noLocks
  public func ring() { window.write16(queue, at: 0) }
}
