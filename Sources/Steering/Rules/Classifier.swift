/// A rule set as it is looked up in: one flat piece of memory that never changes.
///
/// Whoever makes it owns it and hands out ``view``; it lives until the last user has let go of that. Who changes the rules
/// makes another one.
public struct Classifier: ~Copyable, @unchecked Sendable {
  /// What is looked up in.
  public let view: ClassifierView
  /// Bytes of memory that it takes.
  public let byteCount: Int

  /// Most rules that are compared with one packet; the time of a lookup grows with it.
  public static let maximumSteps = 1024

  /// - Throws: what cannot stand in the set; or rules that would be compared with one packet one after the other, more
  ///   than ``maximumSteps`` of them.
  public init(_ set: RuleSet) throws(RuleError) {
    try set.check()
    let fields = FieldPlan(set)
    let plan = ClassifierPlan(set, fields)
    var memory = FlatMemory()
    var header = ClassifierHeader()
    header.wordCount = UInt32(plan.wordCount)
    let place = memory.reserve(ClassifierHeader.self, count: 1)
    Self.lay(set, fields, &memory, &header)
    let summaries = ClassifierSummaries(plan)
    header.summaryCount = UInt32(summaries.chosen.count)
    header.summaries = memory.reserve(UInt64.self, count: 256 * summaries.chosen.count)
    withUnsafeMutableBytes(of: &header.positions) { positions in
      for (index, summary) in summaries.chosen.enumerated() {
        positions[index] = UInt8(summary.position)
        memory.store(summary.sets, at: header.summaries + 256 * 8 * index)
      }
    }
    let groups = plan.groups.map { group in
      group.rules.count <= 2
        ? Self.layRow(group, plan, &memory) : Self.layHashed(group, plan, &memory)
    }
    header.groupCount = UInt32(groups.count)
    header.groups = memory.reserve(ClassifierGroup.self, count: groups.count)
    memory.store(groups.map(\.group), at: header.groups)
    let steps = groups.reduce(0) { $0 + $1.steps }
    if steps > Self.maximumSteps { throw Self.tooManySteps(steps, groups, set, plan) }
    header.steps = UInt32(steps)
    memory.store([header], at: place)
    byteCount = memory.byteCount
    view = ClassifierView(start: UnsafeRawPointer(memory.allocate()))
  }

  deinit { view.start.deallocate() }

  private typealias LaidGroup = (group: ClassifierGroup, steps: Int, worst: Int)

  private static func tooManySteps(
    _ steps: Int, _ groups: [LaidGroup], _ set: RuleSet, _ plan: ClassifierPlan
  ) -> RuleError {
    let worst = groups.max { $0.steps < $1.steps }?.worst ?? 0
    return RuleError(
      word: set.rules[plan.order[worst]].name,
      problem: "up to \(steps) rules, this one among them, would be compared with one packet",
      advice:
        "let them differ in addresses, ports or fields that are not ranges, so that it is \(maximumSteps) at most"
    )
  }

  private static func layRow(
    _ group: ClassifierPlan.Group, _ plan: ClassifierPlan, _ memory: inout FlatMemory
  ) -> LaidGroup {
    var row = group.rules
    dropDuplicates(&row, plan)
    let laid = ClassifierGroup(
      firstRank: UInt32(row[0]), partCount: 0, parts: 0, slots: lay(row, plan, &memory), shift: 0)
    return (laid, row.count, row[0])
  }

  private static func layHashed(
    _ group: ClassifierPlan.Group, _ plan: ClassifierPlan, _ memory: inout FlatMemory
  ) -> LaidGroup {
    // Who writes rules does not choose where they fall.
    let parts = group.masks.indices.filter { group.masks[$0] != 0 }.map {
      ClassifierHashPart(
        word: UInt64($0), mask: group.masks[$0], factor: .random(in: 0...(.max)) | 1)
    }
    if parts.isEmpty { return layRow(group, plan, &memory) }
    // Rules of one hash beside each other, in their order.
    let hashed = group.rules.map { rank in
      let hash = parts.reduce(UInt64(0)) {
        $0 &+ (plan.example(rank, Int($1.word)) & $1.mask) &* $1.factor
      }
      return hash & ~0xffff_ffff | UInt64(rank)
    }.sorted()
    var bits = 3
    while 1 << bits < 2 * hashed.count { bits += 1 }
    let shift = UInt32(32 - bits)
    var slots = [ClassifierSlot](repeating: .init(tag: 0, rules: 0), count: 1 << bits)
    var longest = (steps: 0, rank: 0)
    var row: [Int] = []
    var first = 0
    while first < hashed.count {
      let tag = UInt32(truncatingIfNeeded: hashed[first] >> 32)
      row.removeAll(keepingCapacity: true)
      while first < hashed.count, hashed[first] >> 32 == UInt64(tag) {
        row.append(Int(hashed[first] & 0xffff_ffff))
        first += 1
      }
      dropDuplicates(&row, plan)
      if row.count > longest.steps { longest = (row.count, row[0]) }
      var index = Int(tag >> shift)
      while slots[index].rules != 0 { index = (index + 1) & (slots.count - 1) }
      slots[index] = ClassifierSlot(tag: tag, rules: UInt32(lay(row, plan, &memory) / 16))
    }
    let laid = ClassifierGroup(
      firstRank: UInt32(group.rules[0]), partCount: UInt32(parts.count),
      parts: memory.append(parts), slots: memory.append(slots), shift: shift)
    return (laid, longest.steps, longest.rank)
  }

  /// Of rules that ask for the same, the first one alone can decide.
  private static func dropDuplicates(_ row: inout [Int], _ plan: ClassifierPlan) {
    if row.count < 2 { return }
    var seen: Set<ArraySlice<WordTest>> = []
    row.removeAll { !seen.insert(plan.tests($0)).inserted }
  }

  /// - Returns: where the row begins.
  private static func lay(_ ranks: [Int], _ plan: ClassifierPlan, _ memory: inout FlatMemory)
    -> Int
  {
    var first: Int?
    for (index, rank) in ranks.enumerated() {
      let tests = plan.tests(rank)
      let place = memory.append(
        ClassifierRule(
          rank: UInt32(rank), index: UInt32(plan.order[rank]), testCount: UInt32(tests.count),
          isLast: index == ranks.count - 1 ? 1 : 0))
      first = first ?? place
      for test in tests { memory.append(test) }
    }
    return first ?? 0
  }

  private static func lay(
    _ set: RuleSet, _ plan: FieldPlan, _ memory: inout FlatMemory, _ header: inout ClassifierHeader
  ) {
    let definitions = set.protocols.enumerated().flatMap { index, definition in
      definition.places.map { ClassifierDefinition(definition, $0, UInt8(index), plan.headers) }
    }
    header.definitionCount = UInt32(definitions.count)
    header.definitions = memory.append(definitions)
    header.fieldCount = UInt32(plan.fields.count)
    header.fields = memory.append(
      plan.fields.map {
        ClassifierField(
          mask: $0.bits.mask, header: UInt8($0.header), offset: UInt8($0.bits.offset),
          byteCount: UInt8($0.bits.byteCount))
      })
  }
}

extension ClassifierDefinition {
  /// - Parameter headers: places of protocols in the set, by name.
  fileprivate init(
    _ definition: ProtocolDefinition, _ place: ProtocolPlace, _ index: UInt8,
    _ headers: [String: Int]
  ) {
    let own = { (name: String) in ClassifierLayer.own + UInt8(headers[name] ?? 0) }
    type = place.type
    header = index
    layer =
      switch place.layer {
      case .ethernet: ClassifierLayer.ethernet
      case .ipv4, .ip: ClassifierLayer.ipv4
      case .ipv6: ClassifierLayer.ipv6
      case .udp: ClassifierLayer.udp
      case .tcp: ClassifierLayer.tcp
      case .own(let name): own(name)
      }
    switch definition.headerLength {
    case .fixed(let bytes): lengthAdd = UInt8(bytes)
    case .variable(let bits, let scale, let add):
      lengthMask = bits.mask
      lengthOffset = UInt8(bits.offset)
      lengthBytes = UInt8(bits.byteCount)
      lengthScale = UInt8(scale)
      lengthAdd = UInt8(add)
    }
    guard let next = definition.next else { return }
    nextMask = next.number.mask
    nextOffset = UInt8(next.number.offset)
    nextBytes = UInt8(next.number.byteCount)
    nextNumbers =
      switch next.numbers {
      case .etherType: ClassifierNumbers.etherType
      case .ipProtocol: ClassifierNumbers.ipProtocol
      case .own(let name): own(name)
      }
  }
}
