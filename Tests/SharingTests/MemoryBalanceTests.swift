import Testing

@testable import Supervisor

@Suite struct MemoryBalanceTests {
  static let mebibyte = 1 << 20

  func share(_ id: UInt32, _ guaranteed: Int, _ now: Int, idle: UInt64, asked: Bool = false)
    -> MemoryShare
  {
    MemoryShare(
      id: id, guaranteed: guaranteed * Self.mebibyte, now: now * Self.mebibyte, idle: idle,
      isAsked: asked)
  }

  func plan(_ bytes: Int, for id: UInt32?, guaranteed: Bool = false, _ shares: [MemoryShare])
    -> [UInt32: Int]?
  {
    MemoryBalance.reclaim(
      bytes * Self.mebibyte, for: id, idleAfter: 1000, isGuaranteed: guaranteed, from: shares
    ).map { Dictionary(uniqueKeysWithValues: $0.map { ($0.id, $0.target / Self.mebibyte) }) }
  }

  @Test func theLongestIdleGiveFirstAndNoMoreThanIsLacking() {
    let shares = [
      share(1, 16, 64, idle: 0), share(2, 16, 48, idle: 2000), share(3, 16, 64, idle: 9000),
    ]
    #expect(plan(32, for: 1, shares) == [3: 32])
    #expect(plan(64, for: 1, shares) == [3: 16, 2: 32])
    #expect(plan(80, for: 1, shares) == [3: 16, 2: 16])
    // The busy one keeps what it has, and nobody goes below his guarantee.
    #expect(plan(82, for: nil, shares) == nil)
    // What a new instance is guaranteed also the busy ones have to give.
    #expect(plan(82, for: nil, guaranteed: true, shares) == [3: 16, 2: 16, 1: 62])
    #expect(plan(130, for: nil, guaranteed: true, shares) == nil)
    // Nobody gives to himself.
    #expect(plan(48, for: 3, shares) == nil)
  }

  @Test func whatHasBeenAskedForIsNotAskedForAgain() {
    let shares = [share(1, 16, 16, idle: 0), share(2, 16, 64, idle: 5000, asked: true)]
    #expect(plan(48, for: 1, shares) == [:])
    #expect(plan(50, for: 1, shares) == nil)
    #expect(MemoryBalance.relief(shares) == [])
  }

  @Test func anyPlanFreesWhatIsLackingAndKeepsGuarantees() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      let shares = (0..<UInt32.random(in: 1...10, using: &random)).map { id in
        let guaranteed = Int.random(in: 2...32, using: &random)
        return share(
          id, guaranteed, guaranteed + Int.random(in: 0...64, using: &random),
          idle: UInt64.random(in: 0...3000, using: &random))
      }
      let wanted = Int.random(in: 1...200, using: &random) * Self.mebibyte
      let able = shares.filter { $0.id != 0 && $0.idle >= 1000 }
      let most = able.reduce(0) { $0 + $1.now - $1.guaranteed }
      let shrinks = MemoryBalance.reclaim(wanted, for: 0, idleAfter: 1000, from: shares)
      #expect((shrinks == nil) == (most < wanted))
      var freed = 0
      for shrink in shrinks ?? [] {
        let share = shares.first { $0.id == shrink.id }!
        #expect(shrink.target >= share.guaranteed && shrink.target < share.now)
        #expect(share.idle >= 1000)
        freed += share.now - shrink.target
      }
      #expect(shrinks == nil || freed == wanted)
    }
  }

  @Test func aBudgetIsWhatAllHaveTogether() {
    let shares = [share(1, 16, 64, idle: 0), share(2, 16, 32, idle: 0)]
    #expect(MemoryBalance.free(budget: 128 << 20, shares) == 32 << 20)
    #expect(MemoryBalance.free(budget: 64 << 20, shares) == 0)
    #expect(MemoryBalance.free(budget: nil, shares) == .max)
    #expect(
      MemoryBalance.relief(shares) == [
        .init(id: 1, target: 16 << 20), .init(id: 2, target: 16 << 20),
      ])
  }
}
