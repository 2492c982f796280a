import CLinux
import Channel
import Glibc
import Memory
import Steering

/// What administrators ask for of rules: `rules list`, and with a text in a memfd `rules replace`, `rules add` and
/// `rules modify`; `rules remove names=`, `rules move name= before=`. A change is answered when the driver host goes by it.
extension SharingServer {
  func serveRules(_ message: ControlMessage, _ connection: PeerConnection) {
    let verb = message.rest.prefix { $0 != " " }
    if verb == "list" { return sayRules(connection) }
    let text = connection.takeText()
    do throws(RuleError) {
      try change(String(verb), message, text, connection)
    } catch {
      count("rules_refused")
      connection.say(Refusal(reason: "rules: \(error)").text)
    }
  }

  private func change(
    _ verb: String, _ message: ControlMessage, _ text: String?, _ connection: PeerConnection
  ) throws(RuleError) {
    let editor = RuleEditor(ruleBook.rules)
    let new: RuleSet
    switch (verb, text) {
    case ("replace", let text?): new = try RuleSet(text)
    case ("add", let text?): new = try editor.adding(text)
    case ("modify", let text?): new = try editor.modifying(text)
    case ("remove", nil):
      new = try editor.removing((message["names"] ?? "").split(separator: ",").map(String.init))
    case ("move", nil):
      new = try editor.moving(message["name"] ?? "", before: message["before"])
    default:
      throw RuleError(
        word: verb, problem: "nobody understands that",
        advice:
          "there is list, replace, add and modify with a text, remove with names, move with a name")
    }
    try set(new)
    rulesWaiting.append((ruleBook.generation, connection))
    tellOfRules()
  }

  /// Takes rules in place of those before.
  /// - Throws: where they cannot be looked up.
  func set(_ new: RuleSet) throws(RuleError) {
    for stage in Set(new.rules.lazy.flatMap(\.actions.stages)).sorted()
    where !policy.stages.contains(where: { $0.name == stage }) {
      let names = policy.stages.map(\.name).joined(separator: ", ")
      throw RuleError(
        word: "stage=\(stage)", problem: "this run has no stage of that name",
        advice: names.isEmpty ? "add it to the policy: [[stage]]" : "there is \(names)")
    }
    for rule in new.rules where (rule.actions.mark ?? 0) > UInt16.max {
      throw RuleError(
        word: "mark=\(rule.actions.mark ?? 0)", problem: "it does not fit into a packet's tag",
        advice: "choose one up to \(UInt16.max)")
    }
    // The driver host makes one too: it is not told of what it would refuse.
    _ = try Classifier(new)
    ruleBook.replace(with: new)
  }

  /// - Parameter isAgain: another driver host is in place.
  func tellOfRules(isAgain: Bool = false) {
    do throws(MemoryError) {
      guard let message = try ruleBook.message(isAgain: isAgain) else { return }
      // Who captures hears of the names before a packet can meet the rules.
      if !isAgain, let names = ruleBook.numbered { captures?.note(names) }
      path.tell(message.text, message.descriptors)
    } catch {
      report("the driver host cannot be told of rules: \(error)")
      ruleBook.giveUp()
      answerRules(upTo: .max, Refusal(reason: "rules: \(error)").text)
    }
  }

  /// - Returns: whether the driver host's message was about rules.
  func noteRules(_ message: ControlMessage) -> Bool {
    let isRefusal = message.word == "refused" && message["what"] == "rules"
    guard message.word == "ruled" || isRefusal,
      let generation: UInt64 = message.number("generation")
    else { return false }
    if isRefusal {
      report("the driver host refuses rules: \(message["reason"] ?? "no reason")")
      ruleBook.refuse(generation)
    } else {
      ruleBook.confirm(generation)
    }
    // What was set since is forgotten with what is refused.
    if isRefusal {
      answerRules(upTo: .max, Refusal(reason: "rules: the driver host refuses them").text)
    } else {
      answerRules(upTo: generation, "end")
    }
    tellOfRules()
    return true
  }

  /// - Returns: whether the driver host's message was about what the device lets through.
  func noteFilter(_ message: ControlMessage) -> Bool {
    guard message.word == "filter" else { return false }
    deviceFilter = StationFilter(message)
    return true
  }

  private func answerRules(upTo generation: UInt64, _ text: String) {
    for (wanted, connection) in rulesWaiting where wanted <= generation { connection.say(text) }
    rulesWaiting.removeAll { $0.generation <= generation }
  }

  /// All rules with their counts, in a memfd: one line for each definition and each rule.
  private func sayRules(_ connection: PeerConnection) {
    let lines =
      ruleBook.rules.protocols.map { "- - - - \($0)\n" }
      + ruleBook.counts.map {
        "\($1.packets) \($1.bytes) \($1.limited) \($1.absent) \($0)\n"
      }
    do throws(MemoryError) {
      let text = try SharedText(lines.joined(), name: "martlet-rules-list")
      connection.say(
        "rules bytes=\(text.byteCount) in-force=\(ruleBook.generation == ruleBook.generationInForce ? "yes" : "no")"
          + (deviceFilter.map { " \($0)" } ?? ""),
        [text.descriptor])
      connection.say("end")
    } catch {
      connection.say(Refusal(reason: "rules: \(error)").text)
    }
  }
}
