import CLinux
import Glibc
import Synchronization

/// What the threads of a running host share: the word that ends them, and the first thing that went wrong.
@usableFromInline
final class HostRun: Sendable {
  /// Becomes readable when a queue thread has failed.
  let failed: Int32
  private let failure = Mutex<HostError?>(nil)
  private let wakes: [WakeSet]
  // Invariant: points at a cache line of its own, whose first word is 1 once the threads are to end.
  nonisolated(unsafe) let stopWord: UnsafeMutableRawPointer
  /// What the threads show of themselves.
  let signs: HostSigns
  // Invariant: the page that `signs` are in, where nobody else has one for them.
  private nonisolated(unsafe) let ownPage: UnsafeMutableRawPointer?

  /// - Parameters:
  ///   - failed: an eventfd.
  ///   - wakes: what the queue threads sleep on.
  ///   - signs: of a page that outlives all threads; nil where nobody watches.
  init(failed: Int32, wakes: [WakeSet], signs: HostSigns? = nil) {
    self.failed = failed
    self.wakes = wakes
    ownPage =
      signs == nil ? .allocate(byteCount: HostSigns.byteCount, alignment: 64) : nil
    ownPage?.initializeMemory(as: UInt8.self, repeating: 0, count: HostSigns.byteCount)
    self.signs = signs ?? HostSigns(page: ownPage!)
    stopWord = .allocate(byteCount: 64, alignment: 64)
    stopWord.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
  }

  deinit {
    stopWord.deallocate()
    ownPage?.deallocate()
  }

  /// Tells all queue threads to end, those that sleep too.
  func stop() {
    release_store32(stopWord, 1)
    for wake in wakes { wake.ring() }
  }

  /// Queue threads may be started again. Only while none of them is at work.
  func resume() { release_store32(stopWord, 0) }

  /// A queue thread cannot go on. The first failure is the one that counts.
  func fail(_ error: HostError) {
    failure.withLock { if $0 == nil { $0 = error } }
    signal(failed)
  }

  /// Why a queue thread has ended; nil while all go on.
  var firstFailure: HostError? { failure.withLock { $0 } }
}

/// Makes an eventfd of this process readable.
func signal(_ eventfd: Int32) {
  var one: UInt64 = 1
  _ = write(eventfd, &one, 8)
}
