import Channel

/// Where the counter page of a host that is shared has what it counts for each instance: for who reads single ones, often.
public struct InstanceCounterPlaces: Sendable {
  private let first: Int
  private let stride: Int

  /// - Parameter queues: of the host.
  public init(queues: Int) {
    first = HostStatistics.capacity(queues: queues) + SharedCounter.allCases.count
    stride = InstanceCounter.allCases.count
  }

  /// The sum over all queues.
  /// - Parameters:
  ///   - slot: of the instance, 0 to 63.
  ///   - page: of such a host.
  public func statistics(of slot: Int, in page: borrowing CounterPage) -> InstanceStatistics {
    let entry = first + slot * stride
    let dropped =
      page.value(entry + InstanceCounter.droppedRingFull.rawValue)
      &+ page.value(entry + InstanceCounter.droppedNoSegment.rawValue)
      &+ page.value(entry + InstanceCounter.droppedBudget.rawValue)
    return InstanceStatistics(
      receivedPackets: page.value(entry + InstanceCounter.receivedPackets.rawValue),
      receivedBytes: page.value(entry + InstanceCounter.receivedBytes.rawValue),
      receiveDropped: dropped,
      sentPackets: page.value(entry + InstanceCounter.sentPackets.rawValue),
      sentBytes: page.value(entry + InstanceCounter.sentBytes.rawValue),
      sendRefused: page.value(entry + InstanceCounter.refusedSource.rawValue))
  }
}
