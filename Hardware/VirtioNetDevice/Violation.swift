/// Something that the driver did and the specification forbids.
public struct Violation: Equatable, Sendable, CustomStringConvertible {
  /// The section of virtio 1.2 that says so.
  public var section: String
  public var detail: String

  public var description: String { "\(detail) (virtio 1.2, \(section))" }
}

/// The first violations, and how many there were in all.
public struct ViolationRecord: Sendable {
  public private(set) var first: [Violation] = []
  public private(set) var count = 0

  mutating func add(_ section: String, _ detail: String) {
    count += 1
    if first.count < 64 { first.append(Violation(section: section, detail: detail)) }
  }

  public mutating func clear() { self = ViolationRecord() }
}
