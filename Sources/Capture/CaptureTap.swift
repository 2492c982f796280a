import CLinux
import Glibc
import Memory

/// Where a queue thread's packets are captured. While nobody captures, ``isOn`` is all that it costs. A plain view; what it
/// points at lives as long as the process. One thread.
public struct CaptureTap: BitwiseCopyable, @unchecked Sendable {
  // Invariant: points at an initialised state that is never freed. What a tap without an area points at is never written.
  @usableFromInline let state: UnsafeMutablePointer<CaptureTapState>

  /// Of a path whose packets nobody can capture.
  public static let none = CaptureTap()

  private init() {
    state = .allocate(capacity: 1)
    state.initialize(to: CaptureTapState())
  }

  /// - Parameters:
  ///   - area: outlives the process's threads, as `readers` does.
  ///   - queue: whose thread it is.
  ///   - packets: what descriptors count from.
  ///   - byteCount: from there on; what lies elsewhere is not looked at.
  public init(
    area: borrowing CaptureArea, readers: borrowing CaptureReaders, queue: Int,
    packets: UnsafeRawPointer, byteCount: Int
  ) {
    state = .allocate(capacity: 1)
    state.initialize(
      to: CaptureTapState(
        area: area, readers: readers, queue: queue, packets: packets, byteCount: byteCount))
  }

  /// Whether there is another order than the one that was taken.
  @inlinable public var hasUpdate: Bool {
    @inline(__always) get {
      relaxed_load64(state.pointee.generationWord) != state.pointee.generation
    }
  }

  /// Whether anybody captures.
  @inlinable public var isOn: Bool {
    @inline(__always) get { state.pointee.active != 0 }
  }

  /// Whether anybody captures what instances get or send.
  @inlinable public var isOnInstances: Bool {
    @inline(__always) get { state.pointee.ofInstances != 0 }
  }

  @inline(never)
  public func takeUpdate() { state.pointee.takeUpdate() }

  /// A burst begins: its packets have a time of their own, and come after those of the burst before.
  @inline(never)
  public func beginBurst() { state.pointee.beginBurst() }

  /// The number of the packet in a slot of this burst.
  public func number(of slot: Int) -> UInt32 {
    state.pointee.numbered &+ UInt32(truncatingIfNeeded: slot)
  }

  /// Which slot of this burst a number would have.
  public func slot(of number: UInt32) -> Int {
    Int(Int32(bitPattern: number &- state.pointee.numbered))
  }

  /// Packets at the wire.
  /// - Parameters:
  ///   - burst: each packet has its metadata, if any, and its pieces.
  ///   - rules: which rule matches each, where there are any.
  @inline(never)
  public func capture(
    _ point: CapturePoint, _ burst: borrowing Burst, rules: RuleFinder? = nil
  ) {
    state.pointee.capture(
      point, burst.start, burst.count, first: 0, instance: 0, base: 0,
      rule: rules.map(CapturedRule.found) ?? .none)
  }

  /// Packets of the only instance, in the first so many slots.
  @inline(never)
  public func capture(_ point: CapturePoint, _ burst: borrowing Burst, upTo count: Int) {
    precondition(count <= burst.count)
    state.pointee.capture(
      point, burst.start, count, first: 0, instance: Self.onlyInstance, base: 0, rule: .none)
  }

  /// The identifier of an instance that shares its device with nobody.
  public static let onlyInstance: UInt32 = 1 << 8

  /// Packets of one instance.
  /// - Parameters:
  ///   - slots: the packets', metadata and pieces.
  ///   - number: the first one's place in the burst.
  ///   - instance: its identifier.
  ///   - base: where its descriptors count from, in bytes from where those of the wire do.
  ///   - rule: the number of the one that has sent them there.
  @inline(never)
  public func capture(
    _ point: CapturePoint, _ slots: UnsafePointer<Descriptor>, _ count: Int, number: Int,
    instance: UInt32, base: Int, rule: UInt32 = CaptureRecord.noRule
  ) {
    state.pointee.capture(
      point, slots, count, first: number, instance: instance, base: base, rule: .known(rule))
  }
}
