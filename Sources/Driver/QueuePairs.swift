/// Holds a driver's queue pairs until the host takes them, each once. One thread.
public struct QueuePairs<Pair: ~Copyable>: ~Copyable {
  // Invariant: the first `count` of `capacity` places are initialised.
  private let places: UnsafeMutablePointer<Pair?>
  private let capacity: Int
  /// Pairs that were put in, taken out or not.
  public private(set) var count = 0

  /// - Parameter capacity: how many pairs will be put in at most.
  public init(capacity: Int) {
    places = .allocate(capacity: capacity)
    self.capacity = capacity
  }

  deinit {
    places.deinitialize(count: count)
    places.deallocate()
  }

  /// Puts a pair in; there must be room.
  public mutating func append(_ pair: consuming Pair) {
    precondition(count < capacity)
    (places + count).initialize(to: pair)
    count += 1
  }

  /// Takes a pair out. A precondition failure when there is none, or it was taken before.
  /// - Parameter index: the pair, from 0, in the order that they were put in.
  public mutating func take(_ index: Int) -> Pair {
    precondition(index >= 0 && index < count, "there is no queue pair \(index)")
    guard let pair = places[index].take() else {
      preconditionFailure("queue pair \(index) was taken before")
    }
    return pair
  }
}
