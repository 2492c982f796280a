import PCI

/// One access of a driver to a register or to configuration space.
public struct RegisterAccess: Sendable, Equatable {
  /// -1 for configuration space.
  public var bar: Int
  public var offset: UInt64
  public var byteCount: Int

  public static let configurationSpace = -1

  public init(bar: Int, offset: UInt64, byteCount: Int) {
    self.bar = bar
    self.offset = offset
    self.byteCount = byteCount
  }

  init(configurationAt offset: Int, _ width: RegisterWidth) {
    self.init(bar: Self.configurationSpace, offset: UInt64(offset), byteCount: width.rawValue)
  }
}
