/// Something that the driver did and the datasheet forbids or leaves undefined.
public struct Violation: Equatable, Sendable, CustomStringConvertible {
  /// The section of the Intel 82574 GbE Controller Family Datasheet (revision 3.4) that it is about.
  public var section: String
  public var detail: String

  public var description: String { "\(detail) (82574 datasheet, \(section))" }
}

/// The first violations, and how many there were in all.
public struct ViolationRecord: Sendable {
  public private(set) var first: [Violation] = []
  public private(set) var count = 0

  mutating func add(_ section: String, _ detail: String) {
    count += 1
    if first.count < 64 { first.append(Violation(section: section, detail: detail)) }
  }

  mutating func clear() { self = ViolationRecord() }
}
