/// A model of a network device that a driver can be tried on: it keeps a record of what the driver does against the
/// device's specification, and misbehaves when it is told to. One thread.
public protocol NetworkModel: PollingModel {
  /// What the driver has done and the specification forbids: the first of it, and how often in all.
  var complaints: [String] { get }
  var complaintCount: Int { get }

  /// What the device has seen, named by the xstats grammar with `device_` in front.
  var namedCounters: [(name: String, value: UInt64)] { get }

  /// Pulls the cable, or puts it back.
  func setLink(up: Bool)

  /// Ways in which a faulty or hostile device completes what it was given.
  static var malformations: [String] { get }
  /// The next completion is malformed in this way; `name` is one of ``malformations``.
  func malform(_ name: String)
  /// Gives up until it is reset, where its specification has a way to say so; nothing otherwise.
  func fail()
}

extension NetworkModel {
  public func fail() {}
}
