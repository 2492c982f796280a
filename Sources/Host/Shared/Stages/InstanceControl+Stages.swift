import Channel
import Memory

/// Stages that the supervisor tells of: `stage place= name= receive=all|rules transmit=all|none fails=open|closed`, and with
/// descriptors and `slots=` when its process runs; `stage-end place=` when that is no more.
extension InstanceControl {
  /// - Throws: where it is refused; the descriptors are the caller's then.
  func setStage(_ message: ControlMessage, _ descriptors: [Int32]) throws(Refusal) {
    guard let place: Int = message.number("place"), let name = message["name"],
      (0..<StagePlan.maximumStages).contains(place)
    else { throw Refusal("no such place") }
    guard stages[place]?.channel == nil else { throw Refusal("it runs already") }
    var channel: StageChannel?
    if !descriptors.isEmpty {
      channel = try makeChannel(place, message, descriptors)
      close(descriptors)
    }
    let stage = PlannedStage(place: place, name: name)
    stage.channel = channel
    stages[place] = stage
    plan(place, message)
    statistics.show(stage: place, name)
    for mailbox in mailboxes { mailbox.forget(stage: place) }
    post("staged place=\(place)", newTable: tableOfNow()) {
      $1.installStage = channel?.ports[$0]
    }
  }

  private func plan(_ place: Int, _ message: ControlMessage) {
    let bit = UInt8(1) << UInt8(place)
    func set(_ word: inout UInt8, _ isIn: Bool) { word = isIn ? word | bit : word & ~bit }
    set(&stagePlan.planned, true)
    set(&stagePlan.receive, message["receive"] == "all")
    set(&stagePlan.transmit, message["transmit"] == "all")
    set(&stagePlan.failsClosed, message["fails"] == "closed")
  }

  private func makeChannel(
    _ place: Int, _ message: ControlMessage, _ descriptors: [Int32]
  ) throws(Refusal) -> StageChannel {
    guard descriptors.count == 2 + mailboxes.count else {
      throw Refusal("wrong number of descriptors")
    }
    guard let slots: Int = message.number("slots"), (256...65536).contains(slots),
      let layout = ChannelLayout(queues: mailboxes.count, slots: slots)
    else { throw Refusal("a channel that cannot be") }
    let own = try copy(descriptors[0])
    let memory: ChannelMemory
    do throws(ChannelError) {
      memory = try ChannelMemory(adopting: own, layout: layout, keepsDescriptor: false)
    } catch {
      throw Refusal(error.description)
    }
    guard let channel = StageChannel(memory, place: place, descriptors.dropFirst(), wakes) else {
      throw Refusal("doorbells that cannot be")
    }
    return channel
  }

  /// A stage's process is no more: what it had of packets is the host's again.
  func endStage(_ message: ControlMessage) throws(Refusal) {
    guard let place: Int = message.number("place"), let stage = stages[place],
      let channel = stage.channel
    else { throw Refusal("no such stage") }
    stage.channel = nil
    stage.isClosed = false
    // Kept until the queue threads have taken the change.
    post("unstaged place=\(place)", keeping: channel) { $1.closeStage = place }
  }

  /// Stages that a queue thread has closed: the supervisor hears why.
  func reportStageOffenders() {
    for (place, stage) in stages where stage.channel != nil && !stage.isClosed {
      let reason = mailboxes.lazy.map { $0.reason(stage: place) }.first { $0 != .none }
      guard let reason else { continue }
      stage.isClosed = true
      supervisor.say("stage-closed place=\(place) reason=\(reason.name)")
    }
  }
}
