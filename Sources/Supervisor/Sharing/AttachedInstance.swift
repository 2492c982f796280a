/// An instance as the supervisor holds it, from its request until everybody has let go of its memory. One thread.
final class AttachedInstance {
  var record: InstanceRecord
  let memory: InstanceMemory
  /// nil once the process is gone or was sent away.
  var connection: PeerConnection?
  var state = State.announced
  /// Answers of the driver host that are missing: one to the instance and one to each claim.
  var missingAnswers: Int
  /// Whether the device may read its memory.
  var isMapped = true
  /// When the state has to have changed, in milliseconds of the monotonic clock; nil for never.
  var deadline: UInt64?
  /// What of its command channel goes with the welcome.
  var commandDescriptors: CommandDescriptors?
  /// What it has got behind its first memory, in order.
  var extents: [MemoryExtent] = []
  /// Applications' memory that it sends from, or will.
  var registrations: [RegisteredExtent] = []
  /// A change of its size that is under way.
  var move: MemoryMove?
  /// How often it has been asked to let go of memory without an answer yet.
  var answersDue = 0
  /// Answers of the driver host that are missing to extents that a host before it had.
  var missingExtents = 0
  /// Words of the driver host that are missing: what the device has been told to forget.
  var missingUnmaps = 0
  /// Packets in and out, and when they last changed, in milliseconds.
  var packets: UInt64 = 0
  var lastTraffic: UInt64 = 0
  /// Why it ends.
  var reason = ""

  enum State {
    /// The driver host has been told and has not answered.
    case announced
    /// Has its welcome, and has not said that it is ready.
    case welcomed
    case running
    /// The driver host has been told to let go.
    case leaving
    /// The device's mapping is being taken away.
    case unmapping
    /// The driver host does not let go: the memory stays as it is until it does or has ended.
    case stuck
  }

  init(
    record: InstanceRecord, memory: InstanceMemory, connection: PeerConnection, deadline: UInt64
  ) {
    self.record = record
    self.memory = memory
    self.connection = connection
    self.deadline = deadline
    missingAnswers = 1 + record.claims.count
  }

  /// The smallest arena of whole extents that has so many bytes at least.
  func extentEnd(from byteCount: Int) -> Int {
    ([memory.arena.byteCount] + extents.map(\.end)).first { $0 >= byteCount } ?? record.arenaBytes
  }

  /// The largest arena of whole extents that has no more than so many bytes.
  func extentStart(upTo byteCount: Int) -> Int {
    extents.map(\.end).last { $0 <= byteCount } ?? memory.arena.byteCount
  }

  /// Whether it is on its way out.
  var isLeaving: Bool {
    switch state {
    case .announced, .welcomed, .running: false
    case .leaving, .unmapping, .stuck: true
    }
  }
}
