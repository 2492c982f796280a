/// Commands one at a time, with what they return. Each throws ``CommandError/refused(_:)`` where the server refuses.
extension CommandClient {
  /// Sends a command and waits for its completion.
  public mutating func call(
    _ command: CommandSubmission, withinMilliseconds limit: Int = 5000
  ) throws(CommandError) -> CommandCompletion {
    try done(try submit(command), limit)
  }

  private mutating func call(
    _ number: CommandNumber, text: String, _ limit: Int
  ) throws(CommandError) {
    _ = try done(try submit(number, text: text), limit)
  }

  private mutating func done(
    _ sequence: UInt64, _ limit: Int
  ) throws(CommandError) -> CommandCompletion {
    let completion = try completion(of: sequence, withinMilliseconds: limit)
    guard completion.statusValue == CommandStatus.done.rawValue else {
      throw .refused(completion.status)
    }
    return completion
  }

  /// - Parameter queue: nil for the sum of all.
  public mutating func statistics(queue: Int? = nil) throws(CommandError) -> InstanceStatistics {
    let operand = queue.map { UInt64($0) } ?? .max
    return InstanceStatistics(try call(CommandSubmission(.statistics, operand)).values)
  }

  public mutating func linkState() throws(CommandError) -> LinkState {
    LinkState(try call(CommandSubmission(.linkState)).values)
  }

  public mutating func time() throws(CommandError) -> CommandTime {
    CommandTime(try call(CommandSubmission(.time)).values)
  }

  /// - Parameter claim: as text, such as `ipv4:10.0.0.3/tcp/80`.
  public mutating func join(
    _ claim: String, withinMilliseconds limit: Int = 5000
  ) throws(CommandError) { try call(.join, text: claim, limit) }

  /// - Parameter claim: one that the instance has, as text.
  public mutating func leave(
    _ claim: String, withinMilliseconds limit: Int = 5000
  ) throws(CommandError) { try call(.leave, text: claim, limit) }

  public mutating func register(
    _ handle: MemoryHandleID, withinMilliseconds limit: Int = 5000
  ) throws(CommandError) -> MemoryRegistration {
    let command = CommandSubmission(.registerMemory, handle.high, handle.low)
    return MemoryRegistration(try call(command, withinMilliseconds: limit).values)
  }

  public mutating func unregister(
    _ handle: MemoryHandleID, withinMilliseconds limit: Int = 5000
  ) throws(CommandError) {
    let command = CommandSubmission(.unregisterMemory, handle.high, handle.low)
    _ = try call(command, withinMilliseconds: limit)
  }

  /// - Returns: bytes that the arena has then.
  public mutating func grow(
    by byteCount: UInt64, withinMilliseconds limit: Int = 5000
  ) throws(CommandError) -> UInt64 {
    try call(CommandSubmission(.grow, byteCount), withinMilliseconds: limit).values[0]
  }

  /// - Returns: bytes that the arena has then.
  public mutating func shrink(
    by byteCount: UInt64, withinMilliseconds limit: Int = 5000
  ) throws(CommandError) -> UInt64 {
    try call(CommandSubmission(.shrink, byteCount), withinMilliseconds: limit).values[0]
  }
}
