import Driver
import Memory
import PCI
import Rings
import Virtio

/// How a virtio driver reaches its device (virtio 1.2, chapter 4). Control path; the doorbell alone is on the data
/// path, and is a plain value.
protocol VirtioTransport: AnyObject {
  /// Reads the device's features, once.
  var deviceFeatures: VirtioFeatures { get }
  func accept(_ features: VirtioFeatures)

  var status: VirtioStatus { get }
  func setStatus(_ status: VirtioStatus)
  /// Writes 0 to the status and waits until it reads 0.
  func reset() throws(DriverError)

  var queueCount: Int { get }
  /// The largest size of a queue; 0 where it does not exist.
  func maximumSize(ofQueue queue: Int) -> Int
  /// Programs and enables a queue.
  func enable(_ queue: Int, _ ring: borrowing SplitQueue, vector: UInt16) throws(DriverError)
    -> QueueDoorbell
  /// Resets one queue (2.6.1), where the device can.
  func resetQueue(_ queue: Int) throws(DriverError)
  func setConfigurationVector(_ vector: UInt16) throws(DriverError)

  /// Device configuration, read until its generation stays the same (2.5.1).
  func readConfiguration<R>(_ body: (RegisterWindow) -> R) throws(DriverError) -> R

  var function: any PCIFunction { get }
  /// Reads and so clears the interrupt status (4.1.4.5): only where interrupts are INTx.
  func readInterruptStatus() -> UInt8
}

/// Where and what a queue's notification is written (4.1.5.2).
struct QueueDoorbell {
  let window: RegisterWindow
  let queue: UInt16

  @inline(__always) @_noLocks
  func ring() { window.write16(queue, at: 0) }
}
