import Channel
import Glibc
import Memory

/// One process of a stage, with the channel and the counters that are made for it. When it goes away, so does the process.
final class StageProcess {
  private var process: ChildProcess
  private var control: ControlSocket
  let channel: ChannelMemory
  let doorbells: InstanceDoorbells
  let counters: CounterPage
  private let configuration: SharedText
  private let queues: Int
  /// How far it had read the receive ring of each queue, and when that last changed or there was nothing to read.
  private var taken: [(index: UInt32, at: UInt64)]

  /// - Parameters:
  ///   - arena: the driver host's, with packets.
  init(
    _ rule: StageRule, _ plan: RunPlan, _ interface: InterfaceDescription,
    arena: (descriptor: Int32, byteCount: Int), at now: UInt64
  ) throws(SupervisorError) {
    queues = interface.queues
    guard let layout = ChannelLayout(queues: interface.queues, slots: StageRule.slots) else {
      throw .input("there is no channel of \(interface.queues) queues")
    }
    channel = try asInput { () throws(ChannelError) -> ChannelMemory in
      try ChannelMemory(layout: layout)
    }
    doorbells = try InstanceDoorbells(queues: interface.queues)
    counters = try asInput { () throws(MemoryError) -> CounterPage in
      try CounterPage(capacity: StageDescriptor.counterCapacity)
    }
    configuration = try asInput { () throws(MemoryError) -> SharedText in
      try SharedText(rule.configuration, name: "martlet-stage-configuration")
    }
    control = try ControlSocket()
    taken = Array(repeating: (0, now), count: interface.queues)
    // In the order of StageDescriptor.
    process = try ChildProcess(
      name: "stage \(rule.name)", program: rule.program ?? Programs.stage,
      arguments: [
        "--name", rule.name, "--kind", rule.kind, "--queues", "\(interface.queues)",
        "--slots", "\(StageRule.slots)", "--arena-bytes", "\(arena.byteCount)",
        "--mac", "\(interface.macAddress)", "--mtu", "\(interface.mtu)",
        "--mode", plan.mode.rawValue, "--confined", plan.isConfined ? "yes" : "no",
      ],
      descriptors: [
        -1, 1, 2, control.peer, arena.descriptor, channel.descriptor, counters.descriptor,
        configuration.descriptor, doorbells.instanceEnd,
      ] + doorbells.events,
      isolation: plan.isConfined ? .everything : [])
    control.closePeer()
    doorbells.closeGivenAway()
  }

  var identifier: pid_t { process.identifier }
  /// What to watch.
  var descriptors: [Int32] { [process.descriptor, control.descriptor] }
  /// What the driver host is given of its channel.
  var channelDescriptors: [Int32] {
    [channel.descriptor, doorbells.hostEnd] + doorbells.events
  }

  /// What it has said since the last time.
  /// - Throws: when it has said that it cannot go on.
  func news(of name: String) throws(SupervisorError) -> [ControlMessage] {
    try control.news(of: "stage \(name)")
  }

  var isOver: Bool { process.isOver }

  /// Whether packets wait for it that it has not taken for too long.
  func hangs(longerThan limit: UInt64, at now: UInt64) -> Bool {
    for queue in 0..<queues {
      let progress = channel.receiveProgress(queue)
      if progress.written == progress.taken || progress.taken != taken[queue].index {
        taken[queue] = (progress.taken, now)
      } else if now - min(now, taken[queue].at) > limit {
        return true
      }
    }
    return false
  }

  func askToEnd() {
    channel.askToEnd()
    control.send("stop")
    doorbells.wakeInstance()
  }

  /// Ends it at once, where it has not ended.
  /// - Returns: how it has ended.
  func kill() -> ProcessEnd { process.end(withinMilliseconds: 0) }
}
