/// One measured thing beside its peer and the C control. Ratios are always such that above 1 ours is better.
public struct BenchmarkRow: Sendable {
  public var name: String
  public var unit: String
  /// Whether more of the unit is better.
  public var isRate: Bool
  public var ours: Spread
  /// What it is compared with, and its values; nil values where the peer could not be run.
  public var peer: String?
  public var peerSpread: Spread?
  public var control: Spread?
  public var rounds: Int
  /// Rounds that were repeated because the machine did something else meanwhile, and those that stayed disturbed.
  public var repeated: Int
  public var disturbed: Int

  public var ratio: Double? { peerSpread.flatMap { ratio(to: $0) } }
  public var controlRatio: Double? { control.flatMap { ratio(to: $0) } }

  private func ratio(to other: Spread) -> Double? {
    let (above, below) =
      isRate ? (ours.median, other.median) : (other.median, ours.median)
    return below > 0 ? above / below : nil
  }
}

/// Median, lowest and highest of some rounds.
public struct Spread: Sendable, Equatable {
  public var median: Double
  public var low: Double
  public var high: Double

  /// - Parameter values: at least one.
  public init(_ values: [Double]) {
    let sorted = values.sorted()
    let middle = sorted.count / 2
    median =
      sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
    low = sorted[0]
    high = sorted[sorted.count - 1]
  }
}
