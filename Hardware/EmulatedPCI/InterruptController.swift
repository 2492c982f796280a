import CLinux
import Glibc

/// The interrupts of an emulated function: MSI-X vectors with their table, and the INTx line.
///
/// A vector signals its eventfd unless it is masked: by its table entry once software has written that (at first the
/// table reads as masked, as it must, but whoever connects eventfds expects them to work), by the function mask, or by
/// the one who connected it.
public struct InterruptController {
  public let vectorCount: Int
  private var eventfds: [Int32]
  private var isMasked: [Bool]
  private var isPending: [Bool]
  private var table: [UInt32]
  private var tableWritten: [Bool]
  private var lineEvent: Int32 = -1
  private var lineIsMasked = false
  private var lineIsAsserted = false
  /// From the MSI-X capability's message control.
  public var isEnabled = false
  public var functionIsMasked = false {
    didSet { if !functionIsMasked { deliverPending() } }
  }
  /// Interrupts that were signalled.
  public private(set) var signalled: UInt64 = 0

  public init(vectors: Int) {
    vectorCount = vectors
    eventfds = Array(repeating: -1, count: vectors)
    isMasked = Array(repeating: false, count: vectors)
    isPending = Array(repeating: false, count: vectors)
    table = Array(repeating: 0, count: vectors * 4)
    tableWritten = Array(repeating: false, count: vectors)
    for vector in 0..<vectors { table[vector * 4 + 3] = 1 }
  }

  /// Connects a vector to an eventfd, which stays its giver's; -1 disconnects it.
  public mutating func connect(_ vector: Int, _ eventfd: Int32) {
    guard vector >= 0 && vector < vectorCount else { return }
    eventfds[vector] = eventfd
    deliver(vector)
  }

  public mutating func setMasked(_ vector: Int, _ masked: Bool) {
    guard vector >= 0 && vector < vectorCount else { return }
    isMasked[vector] = masked
    deliver(vector)
  }

  public mutating func trigger(_ vector: Int) {
    guard vector >= 0 && vector < vectorCount else { return }
    isPending[vector] = true
    deliver(vector)
  }

  private mutating func deliver(_ vector: Int) {
    let byTable = tableWritten[vector] && table[vector * 4 + 3] & 1 != 0
    guard isPending[vector], eventfds[vector] >= 0, !isMasked[vector], !byTable, !functionIsMasked
    else { return }
    isPending[vector] = false
    signal(eventfds[vector])
  }

  private mutating func deliverPending() {
    for vector in 0..<vectorCount { deliver(vector) }
  }

  public mutating func connectLine(_ eventfd: Int32) {
    lineEvent = eventfd
    lineIsMasked = false
    deliverLine()
  }

  public mutating func setLineMasked(_ masked: Bool) {
    lineIsMasked = masked
    deliverLine()
  }

  /// The line stays up until the reason is gone.
  public mutating func setLine(_ asserted: Bool) {
    lineIsAsserted = asserted
    deliverLine()
  }

  /// As with VFIO, the line is masked when it has fired, until whoever took it lets the next one through.
  private mutating func deliverLine() {
    guard lineIsAsserted, !lineIsMasked, lineEvent >= 0 else { return }
    lineIsMasked = true
    signal(lineEvent)
  }

  private mutating func signal(_ eventfd: Int32) {
    signalled += 1
    // An eventfd at its limit would block its writer for as long as whoever gave it likes.
    var entry = pollfd(fd: eventfd, events: Int16(POLLOUT), revents: 0)
    guard poll(&entry, 1, 0) == 1, entry.revents & Int16(POLLOUT) != 0 else { return }
    var one: UInt64 = 1
    _ = write(eventfd, &one, 8)
  }

  /// The table and the pending bits, as a BAR shows them: table at 0, pending bits at `pendingOffset`.
  public func read32(at offset: Int, pendingOffset: Int) -> UInt32 {
    if offset >= 0 && offset < vectorCount * 16 { return table[offset / 4] }
    let word = (offset - pendingOffset) / 4
    guard offset >= pendingOffset, word * 32 < vectorCount else { return 0 }
    var bits: UInt32 = 0
    for bit in 0..<32 where word * 32 + bit < vectorCount && isPending[word * 32 + bit] {
      bits |= 1 << UInt32(bit)
    }
    return bits
  }

  public mutating func write32(_ value: UInt32, at offset: Int) {
    guard offset >= 0 && offset < vectorCount * 16 else { return }
    table[offset / 4] = offset / 4 % 4 == 3 ? value & 1 : value
    let vector = offset / 16
    tableWritten[vector] = true
    deliver(vector)
  }

  /// Everything as after power-on, connections excepted.
  public mutating func reset() {
    for vector in 0..<vectorCount {
      isPending[vector] = false
      tableWritten[vector] = false
      for word in 0..<4 { table[vector * 4 + word] = word == 3 ? 1 : 0 }
    }
    isEnabled = false
    functionIsMasked = false
    lineIsAsserted = false
  }

  /// Forgets all eventfds: whoever gave them is gone.
  public mutating func disconnectAll() {
    for vector in 0..<vectorCount {
      eventfds[vector] = -1
      isMasked[vector] = false
    }
    lineEvent = -1
    lineIsMasked = false
  }
}
