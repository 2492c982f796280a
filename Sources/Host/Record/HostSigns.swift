import CLinux
import Glibc

/// What a host's threads show of themselves in the page that outlives it, and when it came how far. Whoever watches the host
/// reads it and believes nothing that could hurt: a host that fails may write anything. A plain view; any thread reads.
public struct HostSigns: @unchecked Sendable {
  // Invariant: points at a page that stays mapped as long as the host's threads, and as long as whoever watches them.
  private let page: UnsafeMutableRawPointer

  static let byteCount = 4096
  /// Threads that it has room for: control, and one for each queue pair.
  private static let maximumThreads = 62

  init(page: UnsafeMutableRawPointer) { self.page = page }

  /// Before a new host starts: no step has been done, and no thread is at work.
  public func forget() {
    for step in Step.allCases { relaxed_store64(page + step.rawValue * 8, 0) }
    for thread in 0...Self.maximumThreads { pulse(thread).set(.idle) }
  }

  // MARK: Threads

  /// What a thread shows.
  public struct Sign: Equatable, Sendable {
    /// Changes as long as the thread goes on.
    public var beat: UInt32
    public var state: State

    public init(beat: UInt32 = 0, state: State = .idle) {
      self.beat = beat
      self.state = state
    }
  }

  public enum State: UInt32, Sendable {
    /// It has nothing to do, or does not exist.
    case idle = 0
    case working = 1
    /// It waits for an event: a queue's thread for a second at most, the control thread for as long as it takes.
    case sleeping = 2
  }

  /// - Parameter thread: 0 for control, 1 + n for queue pair n.
  public func sign(ofThread thread: Int) -> Sign {
    let pulse = pulse(thread)
    return Sign(beat: pulse.beat, state: State(rawValue: pulse.state) ?? .working)
  }

  func pulse(_ thread: Int) -> Pulse {
    precondition((0...Self.maximumThreads).contains(thread))
    return Pulse(line: page + 64 + thread * 64)
  }

  // MARK: Time

  /// Steps on the way from a host's start to its first packet.
  public enum Step: Int, CaseIterable, Sendable {
    case begun
    case confined
    case ready
    case started
    case firstPacket
  }

  /// When a host has done a step, in nanoseconds of the monotonic clock; 0 where it has not.
  public func time(of step: Step) -> UInt64 { relaxed_load64(page + step.rawValue * 8) }

  /// The step is done now; the first time counts.
  func note(_ step: Step) {
    let word = page + step.rawValue * 8
    if relaxed_load64(word) == 0 { relaxed_store64(word, monotonic_nanoseconds()) }
  }
}

/// By which a thread shows that it goes on: its own words in the page.
@usableFromInline
struct Pulse: @unchecked Sendable {
  // Invariant: points at a cache line that stays mapped as long as the thread; its first two words are the beat and the
  // state, and only this thread writes them while it has work.
  fileprivate let line: UnsafeMutableRawPointer

  fileprivate var beat: UInt32 { relaxed_load32(line) }
  fileprivate var state: UInt32 { relaxed_load32(line + 4) }

  @usableFromInline
  func go() { relaxed_store32(line, beat &+ 1) }

  @usableFromInline
  func set(_ state: HostSigns.State) {
    go()
    relaxed_store32(line + 4, state.rawValue)
  }
}
