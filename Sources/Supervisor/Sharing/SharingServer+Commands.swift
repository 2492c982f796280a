import Channel
import Commands
import Steering

/// Commands of instances that run: claims are checked as at attach, then the driver host is asked.
extension SharingServer {
  /// Answers commands for a moment.
  /// - Returns: whether others may come any moment.
  func serveCommands(at now: UInt64) -> Bool {
    let isBusy = commands.serve()
    for command in commands.takeClaims() { begin(command) }
    for command in commands.takeMoves() { begin(command, at: now) }
    for command in commands.takeRegistrations() { begin(command, at: now) }
    while let (id, reason) = commands.nextClosed() {
      // Whoever closes its doorbell only goes without commands.
      if reason != .gone, let instance = instance(id) {
        count("instances_closed_by_command_server")
        close(instance, reason.name, at: now)
      } else {
        commands.close(id)
      }
    }
    return isBusy
  }

  private func begin(_ command: InstanceCommandService.ClaimCommand) {
    guard let instance = instance(command.caller.instance), instance.state == .running else {
      commands.complete(command.token, .refused(.failed))
      return
    }
    guard let claim = Claim(command.claim) else {
      commands.complete(command.token, .refused(.malformed))
      return
    }
    if let refusal = refusal(command.word, claim, instance) {
      commands.complete(command.token, .refused(refusal))
      return
    }
    ask(command.word, claim, command.token, instance)
  }

  private func begin(_ command: InstanceCommandService.MoveCommand, at now: UInt64) {
    guard let instance = instance(command.caller.instance) else {
      commands.complete(command.token, .refused(.failed))
      return
    }
    if command.isGrowth {
      grow(instance, by: command.byteCount, asker: .command(command.token), at: now)
    } else {
      let left = UInt64(instance.record.arenaBytes)
      shrink(
        instance, to: Int(left - min(left, command.byteCount)), asker: .command(command.token),
        at: now)
    }
  }

  private func ask(
    _ word: InstanceCommandService.ClaimCommand.Word, _ claim: Claim, _ token: CommandToken?,
    _ instance: AttachedInstance
  ) {
    let id = instance.record.id
    commands.asked[id, default: []].append(.init(word: word, claim: claim, token: token))
    path.tell("\(word) id=\(id) claim=\(claim)", [])
  }

  /// - Returns: why the instance may not have, or give up, the claim; nil where it may.
  private func refusal(
    _ word: InstanceCommandService.ClaimCommand.Word, _ claim: Claim, _ instance: AttachedInstance
  ) -> CommandStatus? {
    let record = instance.record
    let asked = commands.asked[record.id] ?? []
    if asked.contains(where: { $0.claim == claim }) { return .busy }
    if word == .unclaim { return record.claims.contains(claim) ? nil : .notFound }
    guard let rule = policy.rule(for: record.name), rule.allows(claim),
      policy.isFree(claim, for: rule)
    else { return .denied }
    if record.claims.contains(claim) { return .conflict }
    if record.claims.count + asked.count >= AttachRequest.maximumClaims { return .exhausted }
    for case let other? in instances
    where other !== instance && isTaken(claim, by: other, uid: record.uid, rule) {
      return .conflict
    }
    return nil
  }

  /// What the driver host has said of a claim that a command was about.
  /// - Returns: whether it was one.
  func noteClaim(_ message: ControlMessage, of instance: AttachedInstance) -> Bool {
    let id = instance.record.id
    let isRefused = message.word == "refused"
    guard let first = commands.asked[id]?.first else { return false }
    switch isRefused ? message["what"] : message.word {
    case "claim", "claimed": if first.word != .claim { return false }
    case "unclaim", "unclaimed": if first.word != .unclaim { return false }
    default: return false
    }
    commands.asked[id]?.removeFirst()
    let claims = instance.record.claims.filter { $0 != first.claim }
    // The claim is the instance's where the host has taken it, or has refused to let go of it.
    let hasIt = isRefused != (first.word == .claim)
    instance.record.claims = hasIt ? claims + [first.claim] : claims
    guard let token = first.token else { return true }
    if isRefused {
      commands.complete(token, .refused(first.word == .claim ? .conflict : .failed))
    } else if commands.complete(token, .done) != .delivered, !instance.isLeaving {
      // The credential is no longer good: all is as it was before.
      ask(first.word == .claim ? .unclaim : .claim, first.claim, nil, instance)
    }
    return true
  }
}
