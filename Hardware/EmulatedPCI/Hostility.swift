/// What makes a function lie.
public protocol Hostility: AnyObject {
  /// What a read gives.
  /// - Parameter honest: what the model says.
  func answer(_ access: RegisterAccess, honest: UInt64) -> UInt64
  /// Whether a write reaches the model.
  func accepts(_ access: RegisterAccess, _ value: UInt64) -> Bool
}

/// What registers answer and take, by what a test says. One thread.
public final class RegisterScript: Hostility {
  /// What a read gives; the second argument is what it honestly would.
  public var answers: (RegisterAccess, UInt64) -> UInt64 = { $1 }
  /// Called before a write reaches the model; false loses it.
  public var writes: (RegisterAccess, UInt64) -> Bool = { _, _ in true }

  public init() {}

  /// From now on all is as the model says.
  public func beHonest() {
    answers = { $1 }
    writes = { _, _ in true }
  }

  /// The device is pulled out after so many reads: from then on they give ones, and writes are lost.
  public func vanish(afterReads limit: Int) {
    var count = 0
    answers = { _, value in
      count += 1
      return count > limit ? .max : value
    }
    writes = { _, _ in count <= limit }
  }

  public func answer(_ access: RegisterAccess, honest: UInt64) -> UInt64 { answers(access, honest) }
  public func accepts(_ access: RegisterAccess, _ value: UInt64) -> Bool { writes(access, value) }
}
