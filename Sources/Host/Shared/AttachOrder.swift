import Channel
import Memory

/// What the supervisor wants attached, every number checked.
struct AttachOrder {
  let id: UInt32
  /// What rules call it.
  let name: String
  /// Where its arena begins in the window, in bytes.
  let base: Int
  let receiveBytes: Int
  /// Of its first extent.
  let arenaBytes: Int
  /// Where applications' memory can be registered, in bytes from its arena's start.
  let registered: Range<Int>
  let layout: ChannelLayout
  let weight: Int
  /// Of each queue thread's time, at most.
  let timePercent: Int
  /// How many receive segments it may hold on each queue.
  let segmentLimit: Int
  /// A host before this one had it.
  let isResumed: Bool

  var index: Int { Int(id & 0xff) }

  init(
    _ id: UInt32, _ message: ControlMessage, _ plan: SharedPlan, windowBytes: Int
  ) throws(InstanceControl.Refusal) {
    typealias Refusal = InstanceControl.Refusal
    guard id & 0xff < 64, id >> 8 > 0 else { throw Refusal("no instance has this id") }
    guard let base: Int = message.number("slot"), let receiveBytes: Int = message.number("receive"),
      let arenaBytes: Int = message.number("bytes"), let slots: Int = message.number("slots")
    else { throw Refusal("a number is missing") }
    guard base >= plan.hostArenaBytes, base % Arena.PageSize.huge2M.rawValue == 0,
      base < windowBytes, arenaBytes > 0, arenaBytes <= windowBytes - base
    else { throw Refusal("it does not lie in the window") }
    guard receiveBytes > 0, receiveBytes < arenaBytes, receiveBytes % 4096 == 0,
      arenaBytes % 4096 == 0, receiveBytes / plan.interface.queuePairs >= 4096
    else { throw Refusal("parts of its arena that cannot be") }
    let registeredAt = message.number("register-at") ?? arenaBytes
    let registeredBytes = message.number("register-bytes") ?? 0
    let granule = Arena.PageSize.huge2M.rawValue
    guard registeredAt >= arenaBytes, registeredBytes >= 0, registeredBytes % granule == 0,
      registeredBytes == 0 || registeredAt % granule == 0, registeredAt <= windowBytes - base,
      registeredBytes <= windowBytes - base - registeredAt
    else { throw Refusal("no place for registered memory") }
    guard (256...4096).contains(slots),
      let layout = ChannelLayout(queues: plan.interface.queuePairs, slots: slots)
    else { throw Refusal("a channel that cannot be") }
    let weight = message.number("weight") ?? 1
    let segments = message.number("segments") ?? 0
    let timePercent = message.number("time") ?? 100
    guard (1...1000).contains(weight), segments >= 0, (1...100).contains(timePercent) else {
      throw Refusal("a share that cannot be")
    }
    isResumed = message["resume"] == "yes"
    self.id = id
    name = message["name"] ?? ""
    self.base = base
    self.receiveBytes = receiveBytes
    self.arenaBytes = arenaBytes
    registered = registeredAt..<registeredAt + registeredBytes
    self.layout = layout
    self.weight = weight
    self.timePercent = timePercent
    segmentLimit = segments == 0 ? .max : max(1, segments / plan.interface.queuePairs)
  }
}
