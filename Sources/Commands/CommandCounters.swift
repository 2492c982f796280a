import Channel

/// What a command server has done, by status. One thread.
public struct CommandCounters: Sendable {
  private var byStatus = InlineArray<16, UInt64>(repeating: 0)
  /// Clients that were closed because they broke the rules of the rings.
  public internal(set) var closed: UInt64 = 0
  /// Commands whose credential was good when they were taken, and no longer when they were done.
  public internal(set) var undone: UInt64 = 0

  /// Completions with this status.
  public subscript(status: CommandStatus) -> UInt64 { byStatus[Int(status.rawValue)] }

  /// - Parameter status: a raw value of `CommandStatus`.
  mutating func count(_ status: UInt32) { byStatus[Int(status & 15)] &+= 1 }

  /// Names in the grammar of xstats, with their values: a counter for each status, and two of the server.
  public var named: [(name: String, value: UInt64)] {
    CommandStatus.allCases.map { ("commands_\($0.name)", self[$0]) }
      + [("commands_undone", undone), ("command_clients_closed", closed)]
  }
}
