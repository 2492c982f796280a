/// Is shown every driver that a program has, by its static type: so a host is compiled for each driver, and finds the
/// one for its function without an existential. One thread.
public protocol DriverVisitor: ~Copyable {
  /// What may go wrong with a visit; `Never` where nothing can.
  associatedtype Failure: Error
  /// Called once for each driver, in alphabetical order, until one throws.
  mutating func visit<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(Failure)
}
