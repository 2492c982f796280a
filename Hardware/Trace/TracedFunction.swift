import PCI

/// A function whose run is being recorded or replayed. Whoever drives it says two things that pass without a call to
/// the function, at the same places in both; so what records a run replays it as well.
public protocol TracedFunction: PCIFunction {
  /// A point at which the driver is about to look at memory that the device writes, such as before `receive(into:)`.
  /// - Parameter label: of one line, the same in recording and replay.
  func mark(_ label: String)

  /// The eventfd of an interrupt has fired and has been read; one that no vector signals does not matter.
  func interruptTaken(_ eventfd: Int32)
}
