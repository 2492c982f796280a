import CLinux
import Channel
import Glibc

/// What the control thread changes on a queue thread's path. It lies in the control thread's memory until it has been
/// taken.
struct PathUpdate {
  /// Who gets what from now on.
  var table: ForwardingTable
  /// An instance more.
  var install: UnsafeMutablePointer<InstancePort>?
  /// An instance less, by number, and why.
  var close: Int?
  var reason = EndReason.detached
  /// Where an instance's transmit part ends from now on.
  var resize: (instance: Int, transmitEnd: UInt64)?
  /// Positions of an instance that it may send from, or no longer.
  var register: (instance: Int, range: Range<UInt64>, isRegistered: Bool)?
  /// A stage more.
  var installStage: UnsafeMutablePointer<StagePort>?
  /// A stage less, by place.
  var closeStage: Int?
}

/// The words by which the control thread and one queue thread talk. A plain view of memory that the control thread owns
/// and that outlives the queue thread.
@usableFromInline
struct PathMailbox: @unchecked Sendable {
  /// How far an instance is on a path.
  enum State: UInt32 {
    case absent = 0
    case installed = 1
    /// The path has let go of it: nothing of it is with the device.
    case released = 2
  }

  // Invariant: points at `byteCount` bytes. The first word is written by the control thread where it is 0 and by the queue
  // thread where it is not. Of each instance's words the queue thread writes the state while a port is with it.
  private let words: UnsafeMutableRawPointer
  /// Readable when the queue thread has written something.
  private let changed: Int32

  private static let byteCount = 64 + 64 * 16 + StagePlan.maximumStages * 4

  init(changed: Int32) {
    words = .allocate(byteCount: Self.byteCount, alignment: 64)
    words.initializeMemory(as: UInt8.self, repeating: 0, count: Self.byteCount)
    self.changed = changed
  }

  func deallocate() { words.deallocate() }

  private func instance(_ index: Int) -> UnsafeMutableRawPointer {
    precondition((0..<64).contains(index))
    return words + 64 + index * 16
  }

  private func stage(_ place: Int) -> UnsafeMutableRawPointer {
    precondition((0..<StagePlan.maximumStages).contains(place))
    return words + 64 + 64 * 16 + place * 4
  }

  // MARK: Control thread

  /// Whether the last update has been taken.
  var isEmpty: Bool { acquire_load64(words) == 0 }

  func put(_ update: UnsafeMutablePointer<PathUpdate>) {
    precondition(isEmpty)
    release_store64(words, UInt64(UInt(bitPattern: update)))
  }

  func state(_ index: Int) -> State {
    State(rawValue: acquire_load32(instance(index))) ?? .absent
  }
  /// Why the path has closed an instance; none where it has not.
  func reason(_ index: Int) -> EndReason {
    EndReason(rawValue: relaxed_load32(instance(index) + 4)) ?? .none
  }
  /// How often nothing was with the device any more that was so before memory was taken from the instance.
  func settled(_ index: Int) -> UInt32 { acquire_load32(instance(index) + 8) }

  /// Before an instance is installed, and after it has been released.
  func forget(_ index: Int) {
    relaxed_store32(instance(index) + 4, 0)
    relaxed_store32(instance(index) + 8, 0)
    release_store32(instance(index), State.absent.rawValue)
  }

  /// Why the path has closed a stage; none where it has not.
  func reason(stage place: Int) -> EndReason {
    EndReason(rawValue: relaxed_load32(stage(place))) ?? .none
  }
  func forget(stage place: Int) { relaxed_store32(stage(place), 0) }

  // MARK: Queue thread

  @usableFromInline var hasUpdate: Bool {
    @inline(__always) get { relaxed_load64(words) != 0 }
  }

  /// The update; it is the control thread's again after ``taken()``.
  func take() -> UnsafeMutablePointer<PathUpdate> {
    UnsafeMutablePointer(bitPattern: UInt(acquire_load64(words)))!
  }

  func taken() {
    release_store64(words, 0)
    tell()
  }

  func set(_ state: State, _ index: Int) {
    release_store32(instance(index), state.rawValue)
    tell()
  }

  func offended(_ index: Int, _ reason: EndReason) {
    relaxed_store32(instance(index) + 4, reason.rawValue)
    tell()
  }

  func offendedByStage(_ place: Int, _ reason: EndReason) {
    relaxed_store32(stage(place), reason.rawValue)
    tell()
  }

  func settle(_ index: Int) {
    release_store32(instance(index) + 8, settled(index) &+ 1)
    tell()
  }

  @inline(never)
  func tell() { signal(changed) }
}
