import Channel
import Glibc
import Steering
import Testing

@testable import Supervisor

@Suite struct RuleEditorTests {
  private func names(_ set: RuleSet) -> [String] { set.rules.map(\.name) }

  @Test func rulesAreAddedModifiedMovedAndRemoved() throws {
    var rules = try RuleSet("rule a drop\nrule b protocol=tcp to=x")
    rules = try RuleEditor(rules).adding("rule c to=y\nrule d to=z")
    #expect(names(rules) == ["a", "b", "c", "d"])
    rules = try RuleEditor(rules).modifying("rule c drop\nrule a to=y")
    #expect(names(rules) == ["a", "b", "c", "d"])
    #expect(rules.rules[0].actions.verdict == .to(["y"]) && rules.rules[2].actions.verdict == .drop)
    rules = try RuleEditor(rules).moving("d", before: "b")
    #expect(names(rules) == ["a", "d", "b", "c"])
    rules = try RuleEditor(rules).moving("a", before: nil)
    #expect(names(rules) == ["d", "b", "c", "a"])
    rules = try RuleEditor(rules).removing(["b", "a"])
    #expect(names(rules) == ["d", "c"])
  }

  @Test func whatIsNotThereIsAnError() throws {
    let editor = RuleEditor(try RuleSet("rule a drop"))
    #expect(throws: RuleError.self) { try editor.adding("rule a to=x") }
    #expect(throws: RuleError.self) { try editor.modifying("rule b drop") }
    #expect(throws: RuleError.self) { try editor.removing(["b"]) }
    #expect(throws: RuleError.self) { try editor.moving("a", before: "a") }
    #expect(throws: RuleError.self) { try editor.moving("b", before: nil) }
  }

  /// A rule may speak of a protocol that came before it, or with it.
  @Test func protocolsStay() throws {
    let rules = try RuleSet("protocol geo above=ethernet type=0x88b5 header=4 field=kind:0:1")
    let more = try RuleEditor(rules).adding("rule maps geo.kind=3 drop")
    #expect(more.protocols.count == 1 && names(more) == ["maps"])
    #expect(try RuleEditor(more).removing(["maps"]).protocols.count == 1)
  }
}

@Suite struct RuleFileTests {
  private func read(_ text: String, _ suffix: String = ".toml") throws -> RuleFile {
    let path = "/tmp/martlet-rules-\(getpid())-\(UInt32.random(in: 0...(.max)))\(suffix)"
    let file = fopen(path, "w")
    fputs(text, file)
    fclose(file)
    defer { unlink(path) }
    return try RuleFile(path: path)
  }

  @Test func tomlSaysTheSameAsText() throws {
    let toml = try read(
      """
      [[rule]]
      name = "maps"
      priority = 5
      geo.kind = 3
      to = ["a", "b"]

      [[rule]]
      name = "no"
      protocol = "tcp"
      destination-port = 80
      drop = true

      [[protocol]]
      name = "geo"
      above = "ethernet"
      type = 0x88b5
      header = 12
      field = ["kind:0:1", "zone:2:2"]
      """)
    let text = try read(
      """
      # a comment
      protocol geo above=ethernet type=0x88b5 header=12 field=kind:0:1 field=zone:2:2
      rule maps priority=5 geo.kind=3 to=a,b
      rule no protocol=tcp destination-port=80 drop
      """, ".rules")
    #expect(toml.rules == text.rules)
    #expect(try RuleSet(toml.rules.description) == text.rules)
  }

  @Test(arguments: [
    ("[[rule]]\nname = \"a\"\n\n[[rule]]\nname = \"b\"\nprotocol = \"no\"\n", ":4: ", "no"),
    ("[[rule]]\nto = \"a\"\n", ":1: ", "name"),
    ("[[rule]]\nname = \"a\"\nto = \"a b\"\n", ":1: ", "one word"),
    ("[[rule]]\nname = \"a\"\nto = 1.5\n", ":1: ", "a fraction"),
    ("[rules]\n", ":1: ", "[[rule]]"),
    ("[[rule]\n", ":1: ", "header"),
  ])
  func mistakesHaveTheirLines(text: String, line: String, word: String) throws {
    do {
      _ = try read(text)
      Issue.record("it was taken: \(text)")
    } catch {
      #expect("\(error)".contains(line) && "\(error)".contains(word), "\(error)")
    }
  }
}

@Suite struct RuleNamesTests {
  /// A record from before a change says what it said then.
  @Test func noTwoSetsHaveANumberInCommon() throws {
    var book = RuleBook(queues: 1)
    var known = KnownRules()
    var firsts: [UInt32] = []
    for (round, text) in ["rule a drop\nrule b drop", "", "rule c drop", "rule b drop"].enumerated()
    {
      book.replace(with: try RuleSet(text))
      let message = try #require(try book.message())
      let names = try #require(book.numbered)
      #expect(message.text.hasSuffix(" first=\(names.first)"))
      // Another host is told the same.
      #expect(try book.message(isAgain: true)?.text == message.text)
      book.confirm(UInt64(round + 1))
      known.note(names)
      firsts.append(names.first)
    }
    #expect(firsts == [0, 2, 2, 3] && book.changes == 4)
    #expect((0..<5).map { known[$0] } == ["a", "b", "c", "b", nil])
    #expect(known[.max] == nil)
  }

  @Test func theOldestAreForgotten() {
    var known = KnownRules()
    for set in 0..<40 as Range<UInt32> {
      known.note(RuleNames(first: set * 10_000, names: (0..<10_000).map { "r\(set)-\($0)" }))
    }
    #expect(known[0] == nil && known[129_999] == nil)
    #expect(known[130_000] == "r13-0" && known[399_999] == "r39-9999")
  }
}

extension ServerTests {
  @Suite struct RuleServerTests {
    private func ask(_ served: Served, _ peer: Peer, _ request: String, _ text: String? = nil)
      throws
    {
      if let text {
        let shared = try SharedText(text, name: "test")
        peer.say("rules \(request) bytes=\(shared.byteCount)", [shared.descriptor])
      } else {
        peer.say("rules \(request)")
      }
      served.step()
    }

    private func hostTakes(_ served: Served) throws -> UInt64 {
      let message = try #require(served.path.news("rules").last)
      let generation: UInt64 = try #require(message.number("generation"))
      _ = served.server.hear(
        host: ControlMessage("ruled generation=\(generation)"), at: served.now)
      return generation
    }

    /// An answer comes when the host goes by what was asked for, and not before.
    @Test func theAnswerWaitsForTheHost() throws {
      let served = try Served()
      let peer = served.peer()
      try ask(served, peer, "replace", "rule a drop")
      #expect(peer.next() == nil)
      // Meanwhile others are collected: they go together.
      let other = served.peer()
      try ask(served, other, "add", "rule b drop")
      try ask(served, other, "add", "rule c drop")
      #expect(served.path.news("rules").count == 1)
      _ = served.server.hear(host: ControlMessage("ruled generation=1"), at: served.now)
      #expect(peer.next()?.word == "end" && other.next() == nil)
      #expect(try hostTakes(served) == 3)
      #expect(other.next()?.word == "end" && other.next()?.word == "end")
      #expect(served.server.ruleBook.rules.rules.map(\.name) == ["a", "b", "c"])
    }

    @Test func whatTheHostRefusesIsForgotten() throws {
      let served = try Served()
      let peer = served.peer()
      try ask(served, peer, "replace", "rule a drop")
      _ = try hostTakes(served)
      #expect(peer.next()?.word == "end")
      try ask(served, peer, "add", "rule b drop")
      _ = served.server.hear(
        host: ControlMessage("refused id=? what=rules generation=2 reason=no"), at: served.now)
      #expect(peer.next()?.word == "refused")
      #expect(served.server.ruleBook.rules.rules.map(\.name) == ["a"])
      #expect(!served.server.ruleBook.isBehind)
    }

    /// The next host is told of all rules before any instance.
    @Test func anotherHostIsToldAgain() throws {
      let served = try Served()
      let peer = served.peer()
      try ask(served, peer, "replace", "rule a drop")
      _ = try hostTakes(served)
      _ = try served.attached()
      served.path.heard = []
      served.server.noteHostGone(at: served.now)
      served.server.restore(at: served.now)
      #expect(served.path.heard.first?.word == "rules")
      #expect(served.path.heard.first?["generation"] == "1")
    }

    @Test func onlyAdministratorsChangeRules() throws {
      var policy = Policy.usual()
      policy.administrators = []
      let served = try Served(policy)
      let peer = served.peer()
      try ask(served, peer, "replace", "rule a drop")
      #expect(peer.next()?.word == "refused")
      #expect(served.server.ruleBook.rules.rules.isEmpty)
    }

    /// What is no text is refused, and the descriptor is not kept.
    @Test func whatIsNoTextIsRefused() throws {
      let served = try Served()
      let peer = served.peer()
      var pipe: [Int32] = [-1, -1]
      Glibc.pipe(&pipe)
      defer { for descriptor in pipe { close(descriptor) } }
      peer.say("rules replace bytes=10", [pipe[0]])
      served.step()
      #expect(peer.next()?.word == "refused")
      let shared = try SharedText("rule a drop", name: "test")
      peer.say("rules replace bytes=100000", [shared.descriptor])
      served.step()
      #expect(peer.next()?.word == "refused")
      try ask(served, peer, "replace", "rule a wrong=1")
      #expect(peer.next()?.word == "refused")
      try ask(served, peer, "replace", "rule a stage=none")
      #expect(peer.next()?.word == "refused")
      try ask(served, peer, "replace", "rule a mark=65536")
      #expect(peer.next()?.word == "refused")
      try ask(served, peer, "nonsense")
      #expect(peer.next()?.word == "refused")
      #expect(served.server.ruleBook.rules.rules.isEmpty)
    }
  }
}
