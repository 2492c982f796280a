/// Something that the driver did and the device's specification forbids.
public struct Violation: Equatable, Sendable, CustomStringConvertible {
  /// Where that is written, such as "virtio 1.2".
  public var specification: String
  /// The section that says so.
  public var section: String
  public var detail: String

  public var description: String { "\(detail) (\(specification), \(section))" }
}

/// The first violations, and how many there were in all.
public struct ViolationRecord: Sendable {
  public let specification: String
  public private(set) var first: [Violation] = []
  public private(set) var count = 0

  /// - Parameter specification: what the sections belong to.
  public init(_ specification: String) { self.specification = specification }

  public mutating func add(_ section: String, _ detail: String) {
    count += 1
    if first.count < 64 {
      first.append(Violation(specification: specification, section: section, detail: detail))
    }
  }

  public mutating func clear() { self = ViolationRecord(specification) }
}
