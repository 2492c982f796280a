import Memory
import Stacks

@testable import LwIPStack

/// An application that sends pattern bytes from buffers of random sizes, in writes of random lengths, and retries what was
/// not taken.
final class PatternSender: ConnectionHandler {
  private let stack: LwIPInterface
  private(set) var connection: ZeroCopyConnection?
  private(set) var offset: UInt64 = 0
  private let byteCount: UInt64
  private var buffer: SendBuffer?
  private var filled = 0
  private var written = 0
  private var start = UnsafeRawPointer(bitPattern: 1)!
  private var wait: SendBufferWait?
  private var random: Linear
  private(set) var acknowledged = 0
  private(set) var end: ZeroCopyConnection.End?
  /// Writes of which only a part, or nothing, was taken.
  private(set) var partial = 0
  private(set) var text: [UInt8] = []
  var closesAtEnd = true
  var whenReceived: (ZeroCopyConnection) -> Void = { _ in }

  init(_ bench: LwIPBench, byteCount: Int, seed: Int) {
    stack = bench.stack
    self.byteCount = UInt64(byteCount)
    random = Linear(state: UInt64(seed))
    bench.accept = { [unowned self] connection in
      self.connection = connection
      return self
    }
  }

  var isDone: Bool { offset == byteCount && buffer == nil }

  /// Writes what can be written.
  func step() throws {
    guard let connection, end == nil else { return }
    while wait == nil {
      if buffer == nil {
        if offset == byteCount { break }
        let size = 1 + Int(random.next() % 131_072)
        wait = try stack.buffers.allocate(byteCount: size) { [unowned self] fresh in
          filled = Int(min(byteCount - offset, UInt64(size)))
          written = 0
          PatternContent.fill(
            UnsafeMutableRawBufferPointer(start: fresh.address, count: filled), offset: offset)
          offset += UInt64(filled)
          start = UnsafeRawPointer(fresh.address)
          buffer = consume fresh
          wait = nil
        }
        continue
      }
      let count = min(filled - written, 1 + Int(random.next() % 70_000))
      let taken = try connection.write(start + written, byteCount: count)
      written += taken
      if written == filled { buffer = nil }
      if taken < count {
        partial += 1
        break
      }
    }
    connection.flush()
    if isDone && closesAtEnd { connection.close() }
  }

  func received(_ bytes: UnsafeRawBufferPointer, _ connection: ZeroCopyConnection) {
    text += bytes
    whenReceived(connection)
  }
  func peerFinished(_ connection: ZeroCopyConnection) {}
  func acknowledged(_ byteCount: Int, _ connection: ZeroCopyConnection) {
    acknowledged += byteCount
  }
  func ended(_ end: ZeroCopyConnection.End, _ connection: ZeroCopyConnection) {
    precondition(self.end == nil)
    self.end = end
    buffer = nil
    if let wait { stack.buffers.cancel(wait) }
    wait = nil
  }
}

struct Linear {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state >> 33
  }
}
