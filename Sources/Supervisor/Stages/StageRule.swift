/// A stage of a shared NIC: a process that packets go through between the driver and the instances. The first of a policy's
/// is the nearest to the wire.
public struct StageRule: Sendable, Equatable {
  /// By which rules and counters call it: lower-case letters, digits and underscores.
  public var name = ""
  /// One of those in martlet-stage.
  public var kind = ""
  /// A program of one's own, which may have several kinds as well; nil for martlet-stage.
  public var program: String?
  /// What the stage reads when it starts.
  public var configuration = ""
  /// A file with it, read when the run starts; a path that is not absolute counts from the policy's folder.
  public var configurationFile: String?
  /// Whether it gets all packets, or those only for which a rule names it.
  public var takesAll = true
  /// Which ways of all packets go through it.
  public var receives = true
  public var transmits = true
  /// What becomes of packets while it does not run: dropped, or passed by.
  public var failsClosed = true
  /// A stage that has taken nothing for so long while packets wait for it is ended, and started anew.
  public var hangMilliseconds: UInt64 = 200

  /// More is not read.
  static let maximumConfigurationBytes = 1 << 18
  /// Slots of each ring of its channel.
  static let slots = 4096
}
