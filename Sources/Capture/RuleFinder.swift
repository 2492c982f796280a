/// Says which rule matches a packet at the wire. Asked for those packets only that a capture keeps: where nobody captures, or
/// the filter takes nothing, no rule is looked up twice. A plain view; what it points at must stay while packets are captured.
public struct RuleFinder: BitwiseCopyable {
  // Invariant: `find` takes what `context` points at.
  private let context: UnsafeRawPointer
  private let find: Find

  /// - Parameters:
  ///   - context: the finder's.
  ///   - frame: a packet's first bytes.
  ///   - byteCount: how many of them there are.
  /// - Returns: the rule's number, or ``CaptureRecord/noRule``.
  public typealias Find =
    @convention(c) (_ context: UnsafeRawPointer, _ frame: UnsafeRawPointer, _ byteCount: Int) ->
    UInt32

  public init(_ context: UnsafeRawPointer, _ find: @escaping Find) {
    self.context = context
    self.find = find
  }

  func rule(of frame: UnsafeRawPointer, byteCount: Int) -> UInt32 {
    find(context, frame, byteCount)
  }
}

/// What is known of the rule that matches a packet.
enum CapturedRule: BitwiseCopyable {
  case known(UInt32)
  case found(RuleFinder)

  static var none: CapturedRule { .known(CaptureRecord.noRule) }
}
