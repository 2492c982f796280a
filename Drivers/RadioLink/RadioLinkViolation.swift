import Driver

/// How the device broke the rings' contract (RadioLink.md, sections 3 and 5). Plain values, so that the data path can
/// keep the first one and tell it again.
enum RadioLinkViolation: BitwiseCopyable {
  case completions(counted: UInt32, after: UInt32, outstanding: Int)
  case place(named: UInt16, expected: Int)
  case length(UInt16, bufferBytes: UInt32)
  case descriptorsDone(counted: UInt32, after: UInt32, outstanding: UInt32)

  /// The host's view of it. Off the data path: text is made here.
  @_semantics("no_performance_analysis")
  @inline(never)
  var error: DriverError {
    switch self {
    case .completions(let counted, let after, let outstanding):
      .deviceViolation(
        queue: 0,
        "the device counts \(counted) completions after \(after), with \(outstanding) buffers")
    case .place(let named, let expected):
      .deviceViolation(
        queue: 0, "the device completed descriptor \(named) in place of \(expected)")
    case .length(let length, let bufferBytes):
      .deviceViolation(
        queue: 0, "the device reports \(length) bytes in a buffer of \(bufferBytes)")
    case .descriptorsDone(let counted, let after, let outstanding):
      .deviceViolation(
        queue: 0,
        "the device counts \(counted) descriptors done after \(after), with \(outstanding) to do")
    }
  }
}
