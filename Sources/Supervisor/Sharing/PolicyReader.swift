import Glibc
import Steering

/// Makes a policy of a TOML tree, and notes all that is wrong with it and where.
struct PolicyReader {
  private(set) var problems: [(path: TOMLTree.Path, text: String)] = []

  mutating func policy(_ tree: TOMLTree, user: uid_t) -> Policy {
    var policy = Policy(user: user)
    let root = section(
      tree, [], keys: ["socket", "memory", "default", "instance", "stage"], name: "the file")
    if let socket = root.value("socket") {
      readSocket(socket, [.key("socket")], into: &policy)
    }
    if let memory = root.value("memory") { policy.memory = memoryRule(memory, [.key("memory")]) }
    if let value = root.value("default") {
      policy.unnamed = rule(value, [.key("default")], isNamed: false)
    }
    switch root.value("instance") {
    case nil: break
    case .array(let rules)?:
      for (index, value) in rules.enumerated() {
        policy.instances.append(
          rule(value, [.key("instance"), .index(index)], isNamed: true))
      }
    default: note([.key("instance")], "instance is written [[instance]], once for each")
    }
    readStages(root.value("stage"), into: &policy)
    checkTogether(policy)
    return policy
  }

  mutating func note(_ path: TOMLTree.Path, _ text: String) {
    problems.append((path, text))
  }

  // MARK: Sections

  private mutating func readSocket(
    _ tree: TOMLTree, _ path: TOMLTree.Path, into policy: inout Policy
  ) {
    let section = section(
      tree, path, keys: ["owner", "group", "mode", "users", "administrators", "connections"],
      name: "[socket]")
    policy.owner = one("owner", section, PolicyValue.user)
    policy.group = one("group", section, PolicyValue.group)
    if let mode = one("mode", section, PolicyValue.mode) { policy.mode = mode }
    if let users = users("users", section) { policy.users = users }
    if let users = users("administrators", section) { policy.administrators = users }
    if let number = number("connections", section, in: 1...1024) {
      policy.connectionsPerUser = number
    }
  }

  private mutating func memoryRule(_ tree: TOMLTree, _ path: TOMLTree.Path) -> MemoryRule {
    let section = section(
      tree, path, keys: ["budget", "let-go-milliseconds", "idle-milliseconds", "pressure"],
      name: "[memory]")
    var rule = MemoryRule()
    rule.budget = one("budget", section) { tree in
      guard case .integer(let number) = tree, (4...(1 << 24)).contains(number) else {
        return .wrong("MiB from 4 to \(1 << 24)")
      }
      return .value(number << 20)
    }
    if let limit = number("let-go-milliseconds", section, in: 10...60000) {
      rule.letGoMilliseconds = UInt64(limit)
    }
    if let limit = number("idle-milliseconds", section, in: 100...86_400_000) {
      rule.idleMilliseconds = UInt64(limit)
    }
    if let trigger = one("pressure", section, PolicyValue.pressure) {
      rule.pressure = trigger == "off" ? nil : trigger
    }
    return rule
  }

  private mutating func rule(
    _ tree: TOMLTree, _ path: TOMLTree.Path, isNamed: Bool
  ) -> InstanceRule {
    let common = [
      "claims", "memory", "maximum-memory", "slots", "weight", "time", "segments",
      "credential-seconds", "registered-memory",
    ]
    let section = section(
      tree, path, keys: common + (isNamed ? ["name", "users", "token-sha256"] : []),
      name: isNamed ? "[[instance]]" : "[default]")
    var rule = InstanceRule()
    if isNamed {
      if section.value("name") == nil { note(path, "this instance has no name: add name = \"…\"") }
      if let name = one("name", section, PolicyValue.name) { rule.name = name }
      rule.users = users("users", section)
      rule.tokenDigest = one("token-sha256", section, PolicyValue.digest)
    }
    if let claims = list("claims", section, PolicyValue.claim) { rule.claims = claims }
    // Both parts of an arena are whole huge pages.
    let sizes = "an even number of MiB from 4 to 65536"
    if let memory = size("memory", section, sizes) { rule.guaranteedBytes = memory }
    if let memory = size("maximum-memory", section, sizes) {
      rule.maximumBytes = memory
      if memory < rule.guaranteedBytes {
        note(
          section.place("maximum-memory"),
          "maximum-memory is less than memory (\(rule.guaranteedBytes >> 20)): raise it or lower memory"
        )
      }
    } else {
      rule.maximumBytes = max(rule.maximumBytes, rule.guaranteedBytes)
    }
    let registered = one("registered-memory", section) { tree -> PolicyValue.Reading<Int> in
      guard case .integer(let number) = tree, (0...65536).contains(number), number % 2 == 0 else {
        return .wrong("an even number of MiB from 0 to 65536")
      }
      return .value(number << 20)
    }
    if let registered { rule.registeredBytes = registered }
    if let slots = number("slots", section, in: 256...4096) {
      if slots & (slots - 1) == 0 {
        rule.slots = slots
      } else {
        note(section.place("slots"), "slots takes a power of two from 256 to 4096, not \(slots)")
      }
    }
    if let weight = number("weight", section, in: 1...1000) { rule.weight = weight }
    if let percent = number("time", section, in: 1...100) { rule.timePercent = percent }
    rule.segments = number("segments", section, in: 16...(1 << 20))
    if let seconds = number("credential-seconds", section, in: 1...(366 * 86400)) {
      rule.credentialSeconds = seconds
    }
    return rule
  }

  /// What is wrong only beside other rules.
  private mutating func checkTogether(_ policy: Policy) {
    for (index, rule) in policy.instances.enumerated() {
      let path: TOMLTree.Path = [.key("instance"), .index(index)]
      for other in policy.instances[..<index] where !rule.name.isEmpty && other.name == rule.name {
        note(
          path + [.key("name")],
          "there is another instance named \(rule.name): choose one name for each")
      }
      for claim in rule.claims.compactMap(\.exactClaim) {
        for other in policy.instances[..<index]
        where other.claims.compactMap(\.exactClaim).contains(where: claim.excludes) {
          note(
            path + [.key("claims")],
            "\(claim) is also \(other.name)'s, and only one instance can have it: leave it to one")
        }
      }
    }
  }

  // MARK: Values

  struct Section {
    var path: TOMLTree.Path
    var members: [String: TOMLTree]

    func value(_ key: String) -> TOMLTree? { members[key] }
    func place(_ key: String) -> TOMLTree.Path { path + [.key(key)] }
  }

  mutating func section(
    _ tree: TOMLTree, _ path: TOMLTree.Path, keys: [String], name: String
  ) -> Section {
    guard case .table(let members) = tree else {
      note(path, "\(name) is \(tree.kind) here, where a table is due")
      return Section(path: path, members: [:])
    }
    for key in members.keys where !keys.contains(key) {
      note(
        path + [.key(key)],
        "\(name) has no key \(key): it takes \(keys.sorted().joined(separator: ", "))")
    }
    return Section(path: path, members: members)
  }

  mutating func one<Value>(
    _ key: String, _ section: Section, _ read: (TOMLTree) -> PolicyValue.Reading<Value>
  ) -> Value? {
    guard let tree = section.value(key) else { return nil }
    switch read(tree) {
    case .value(let value): return value
    case .wrong(let due):
      note(section.place(key), "\(key) takes \(due), not \(PolicyValue.shown(tree))")
      return nil
    }
  }

  mutating func list<Value>(
    _ key: String, _ section: Section, _ read: (TOMLTree) -> PolicyValue.Reading<Value>
  ) -> [Value]? {
    guard let tree = section.value(key) else { return nil }
    guard case .array(let elements) = tree else {
      note(
        section.place(key),
        "\(key) takes an array, not \(PolicyValue.shown(tree)): write \(key) = [ … ]")
      return nil
    }
    var values: [Value] = []
    for (index, element) in elements.enumerated() {
      switch read(element) {
      case .value(let value): values.append(value)
      case .wrong(let due):
        note(
          section.place(key) + [.index(index)],
          "\(key) takes \(due), not \(PolicyValue.shown(element))")
      }
    }
    return values
  }

  private mutating func users(_ key: String, _ section: Section) -> Set<uid_t>? {
    list(key, section, PolicyValue.user).map(Set.init)
  }

  mutating func number(
    _ key: String, _ section: Section, in range: ClosedRange<Int>
  ) -> Int? {
    one(key, section) { tree in
      guard case .integer(let number) = tree, range.contains(number) else {
        return .wrong("a number from \(range.lowerBound) to \(range.upperBound)")
      }
      return .value(number)
    }
  }

  private mutating func size(_ key: String, _ section: Section, _ due: String) -> Int? {
    one(key, section) { tree in
      guard case .integer(let number) = tree, (4...65536).contains(number), number % 2 == 0 else {
        return .wrong(due)
      }
      return .value(number << 20)
    }
  }
}
