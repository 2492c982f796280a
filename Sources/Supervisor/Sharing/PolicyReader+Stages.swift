/// `[[stage]]`: what packets go through.
extension PolicyReader {
  private static let maximumStages = 8

  mutating func readStages(_ tree: TOMLTree?, into policy: inout Policy) {
    switch tree {
    case nil: break
    case .array(let stages)?:
      for (index, value) in stages.enumerated() {
        let path: TOMLTree.Path = [.key("stage"), .index(index)]
        if index == Self.maximumStages {
          note(path, "there are more than \(Self.maximumStages) stages: leave some out")
        }
        let stage = stage(value, path)
        if !stage.name.isEmpty, policy.stages.contains(where: { $0.name == stage.name }) {
          note(
            path + [.key("name")],
            "there is another stage named \(stage.name): choose one name for each")
        }
        policy.stages.append(stage)
      }
    default: note([.key("stage")], "stage is written [[stage]], once for each")
    }
  }

  private mutating func stage(_ tree: TOMLTree, _ path: TOMLTree.Path) -> StageRule {
    let section = section(
      tree, path,
      keys: [
        "name", "kind", "program", "configuration", "configuration-file", "packets", "ways",
        "fails",
        "hang-milliseconds",
      ], name: "[[stage]]")
    var rule = StageRule()
    if section.value("name") == nil { note(path, "this stage has no name: add name = \"…\"") }
    if let name = one("name", section, PolicyValue.stageName) { rule.name = name }
    if section.value("kind") == nil, section.value("program") == nil {
      note(path, "this stage has no kind: add kind = \"firewall\", or program = \"/path\"")
    }
    if let kind = one("kind", section, PolicyValue.name) { rule.kind = kind }
    rule.program = one("program", section, PolicyValue.text)
    if let text = one("configuration", section, PolicyValue.text) { rule.configuration = text }
    rule.configurationFile = one("configuration-file", section, PolicyValue.text)
    if section.value("configuration") != nil, section.value("configuration-file") != nil {
      note(
        section.place("configuration-file"),
        "there is configuration and configuration-file: leave one out")
    }
    if let packets = one("packets", section, { PolicyValue.word($0, ["all", "rules"]) }) {
      rule.takesAll = packets == "all"
    }
    if let ways = list("ways", section, { PolicyValue.word($0, ["receive", "transmit"]) }) {
      rule.receives = ways.contains("receive")
      rule.transmits = ways.contains("transmit")
    }
    if let fails = one("fails", section, { PolicyValue.word($0, ["closed", "open"]) }) {
      rule.failsClosed = fails == "closed"
    }
    if let limit = number("hang-milliseconds", section, in: 10...60000) {
      rule.hangMilliseconds = UInt64(limit)
    }
    return rule
  }
}
