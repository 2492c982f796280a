/// Something that the driver did and RadioLink.md forbids.
public struct RadioLinkViolation: Equatable, Sendable, CustomStringConvertible {
  /// The section of RadioLink.md that says so.
  public var section: Int
  public var detail: String

  public var description: String { "\(detail) (RadioLink.md, section \(section))" }
}

/// The first violations, and how many there were in all.
public struct RadioLinkViolations: Sendable {
  public private(set) var first: [RadioLinkViolation] = []
  public private(set) var count = 0

  mutating func add(_ section: Int, _ detail: String) {
    count += 1
    if first.count < 64 { first.append(RadioLinkViolation(section: section, detail: detail)) }
  }

  public mutating func clear() { self = RadioLinkViolations() }
}
