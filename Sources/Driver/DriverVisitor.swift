/// Is shown every driver that a program has, by its static type.
public protocol DriverVisitor: ~Copyable {
  associatedtype Failure: Error
  mutating func visit<D: NetworkDriver & ~Copyable>(_ driver: D.Type) throws(Failure)
}
