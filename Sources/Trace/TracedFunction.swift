import Memory
import PCI

/// A function whose run is being recorded or replayed. Whoever drives it says what passes without a call to the function,
/// at the same places in both; so what records a run replays it as well. ``TracedDriver`` does so for any driver.
public protocol TracedFunction: PCIFunction {
  /// A point at which the driver is about to look at memory that the device writes, such as before `receive(into:)`.
  /// - Parameter label: of one line, the same in recording and replay.
  func mark(_ label: String)

  /// What came of the call that was marked last; nothing is said where nothing came.
  /// - Parameter label: of one line, the same in recording and replay.
  func outcome(_ label: String)

  /// Held from each mark until its outcome.
  var exclusion: CallExclusion { get }

  /// The eventfd of an interrupt has fired and has been read; one that no vector signals does not matter.
  func interruptTaken(_ eventfd: Int32)

  /// From now on what changes in a part of memory matters, down to the page: a buffer that is lent to the device, or a
  /// packet that the driver may look into. Only in memory that is watched by parts (``TracedMemory``).
  func watch(_ part: DMARange)
}
