import Channel

/// What a stage counts, by the places of ``PacketStage/counterNames``. Published after each burst with work; one thread.
public struct StageCounters: ~Copyable {
  /// Names that a stage may have.
  @inlinable public static var capacity: Int {
    StageDescriptor.counterCapacity - RuntimeCounter.count
  }

  // Invariant: `StageDescriptor.counterCapacity` initialised numbers until deinit: the runtime's, then the stage's.
  @usableFromInline let values: UnsafeMutablePointer<UInt64>
  private let names: [String]

  init(_ names: [String]) throws(StageError) {
    guard names.count <= Self.capacity else {
      throw StageError("it has \(names.count) counters; a stage can have \(Self.capacity)")
    }
    self.names = RuntimeCounter.allCases.map(\.name) + names
    values = .allocate(capacity: StageDescriptor.counterCapacity)
    values.initialize(repeating: 0, count: StageDescriptor.counterCapacity)
  }

  deinit { values.deallocate() }

  /// One of the stage's counters; a place that there cannot be ends the stage.
  @inlinable
  public subscript(index: Int) -> UInt64 {
    get {
      precondition(index >= 0 && index < Self.capacity)
      return values[index &+ RuntimeCounter.count]
    }
    set {
      precondition(index >= 0 && index < Self.capacity)
      values[index &+ RuntimeCounter.count] = newValue
    }
  }

  @inlinable
  subscript(counter: RuntimeCounter) -> UInt64 {
    get { values[counter.rawValue] }
    set { values[counter.rawValue] = newValue }
  }

  @inlinable
  func count(_ first: RuntimeCounter, _ way: StagedPacket.Way) {
    values[first.rawValue &+ Int(way.rawValue & 1)] &+= 1
  }

  /// Names the counters of a page that is the stage's alone.
  func name(on page: borrowing CounterPage) {
    for (index, name) in names.enumerated() { page.name(index, name) }
  }

  @usableFromInline
  func publish(on page: borrowing CounterPage) {
    for index in 0..<names.count { page.set(index, values[index]) }
  }

  /// Names and values, for tests.
  func read() -> [(name: String, value: UInt64)] {
    names.indices.map { (names[$0], values[$0]) }
  }
}

/// What the runtime counts of every stage. Of each pair the first is of packets that were received, the second of those that
/// are sent.
@usableFromInline
enum RuntimeCounter: Int, CaseIterable {
  case received, sent
  case receivedPassed, sentPassed
  case receivedTurned, sentTurned
  case receivedDropped, sentDropped
  case receivedHeld, sentHeld
  case receivedMade, sentMade
  /// Packets that the stage holds now.
  case holding
  /// Packets that it could not make for want of memory.
  case noSpare

  /// How many there are: the stage's own come behind them.
  @usableFromInline static var count: Int { @inlinable get { 14 } }

  var name: String {
    switch self {
    case .received: "rx_packets"
    case .sent: "tx_packets"
    case .receivedPassed: "rx_passed"
    case .sentPassed: "tx_passed"
    case .receivedTurned: "rx_turned"
    case .sentTurned: "tx_turned"
    case .receivedDropped: "rx_dropped"
    case .sentDropped: "tx_dropped"
    case .receivedHeld: "rx_held"
    case .sentHeld: "tx_held"
    case .receivedMade: "rx_made"
    case .sentMade: "tx_made"
    case .holding: "holding"
    case .noSpare: "no_spare"
    }
  }
}
