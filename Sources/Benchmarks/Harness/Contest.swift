/// What one run of one side gave.
public struct Sample {
  /// A value for each of the contest's measures.
  public var values: [Double]
  /// The least share of its core that a busy thread or process of the run got, 0 to 1.
  public var cpuShare: Double

  public init(_ values: [Double], cpuShare: Double) {
    self.values = values
    self.cpuShare = cpuShare
  }
}

/// Things that are measured one after the other, again and again, in one run.
public struct Contest {
  /// What a run gives.
  public struct Measure {
    public var name: String
    public var unit: String
    public var isRate: Bool

    public init(_ name: String, _ unit: String, isRate: Bool) {
      self.name = name
      self.unit = unit
      self.isRate = isRate
    }
  }

  /// Runs one side once.
  public typealias Run = () throws -> Sample

  public var measures: [Measure]
  public var ours: Run
  public var peer: (name: String, run: Run?)?
  public var control: Run?

  public init(
    _ measures: [Measure], ours: @escaping Run, peer: (name: String, run: Run?)? = nil,
    control: Run? = nil
  ) {
    self.measures = measures
    self.ours = ours
    self.peer = peer
    self.control = control
  }

  /// Below this the machine did something else in between.
  public static let leastShare = 0.93
  /// How often one sample may be taken again.
  public static let attempts = 3

  /// Ours, peer, control, ours, peer, control: so many rounds.
  public func measure(rounds: Int) throws -> [BenchmarkRow] {
    try Self.measure([self], rounds: rounds)
  }

  /// All of the first round, then all of the second: what the machine does meanwhile meets all contests alike.
  public static func measure(_ contests: [Contest], rounds: Int) throws -> [BenchmarkRow] {
    var taken = [Samples](repeating: Samples(), count: contests.count)
    for _ in 0..<rounds {
      for index in contests.indices { try taken[index].add(contests[index]) }
    }
    return zip(contests, taken).flatMap { $0.rows($1, rounds) }
  }

  private struct Samples {
    var ours: [Sample] = []
    var peers: [Sample] = []
    var controls: [Sample] = []
    var repeated = 0

    mutating func add(_ contest: Contest) throws {
      ours.append(try Contest.undisturbed(contest.ours, &repeated))
      if let run = contest.peer?.run { peers.append(try Contest.undisturbed(run, &repeated)) }
      if let run = contest.control { controls.append(try Contest.undisturbed(run, &repeated)) }
    }
  }

  private func rows(_ taken: Samples, _ rounds: Int) -> [BenchmarkRow] {
    let disturbed = (taken.ours + taken.peers + taken.controls)
      .count { $0.cpuShare < Self.leastShare }
    return measures.indices.map { index in
      let spread = { (samples: [Sample]) in
        samples.isEmpty ? nil : Spread(samples.map { $0.values[index] })
      }
      let measure = measures[index]
      return BenchmarkRow(
        name: measure.name, unit: measure.unit, isRate: measure.isRate,
        ours: Spread(taken.ours.map { $0.values[index] }), peer: peer?.name,
        peerSpread: spread(taken.peers), control: spread(taken.controls), rounds: rounds,
        repeated: taken.repeated, disturbed: disturbed)
    }
  }

  /// Runs until nothing has disturbed it, a bounded number of times; the least disturbed counts then.
  private static func undisturbed(_ run: Run, _ repeated: inout Int) throws -> Sample {
    var best = try run()
    for _ in 1..<attempts where best.cpuShare < leastShare {
      repeated += 1
      let next = try run()
      if next.cpuShare > best.cpuShare { best = next }
    }
    return best
  }
}
