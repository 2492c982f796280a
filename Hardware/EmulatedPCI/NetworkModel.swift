/// A model of a network device that a driver can be tried on: it keeps a record of what the driver does against the
/// device's specification, and misbehaves when it is told to. One thread.
public protocol NetworkModel: EmulatedFunction {
  /// What the driver has done and the specification forbids.
  var complaints: [String] { get }

  /// Pulls the cable, or puts it back.
  func setLink(up: Bool)

  /// Ways in which a faulty or hostile device completes what it was given.
  static var malformations: [String] { get }
  /// The next completion is malformed in this way; `name` is one of ``malformations``.
  func malform(_ name: String)
}
