import CLinux
import Glibc

/// A thread for one queue pair. It is made while the process may still make threads, and does work when it gets any, until
/// it is ended.
final class QueueThread: @unchecked Sendable {
  // Invariant: `work` is written before `begin` is posted, and by the thread before `done` is; `pinning` is written before
  // `isUp` is posted. The semaphores outlive the thread, which holds this object until it ends.
  private let isUp = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
  private let begin = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
  private let done = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
  private let name: String
  private let core: Int?
  private var pinning: Int32 = 0
  private var work: (() -> Void)?
  private var thread = pthread_t()

  /// - Parameter core: the only core that it runs on; nil for any.
  init(queue: Int, core: Int?) throws(HostError) {
    name = "queue \(queue)"
    self.core = core
    sem_init(isUp, 0, 0)
    sem_init(begin, 0, 0)
    sem_init(done, 0, 0)
    let result = pthread_create(
      &thread, nil,
      { Unmanaged<QueueThread>.fromOpaque($0!).takeRetainedValue().live() },
      Unmanaged.passRetained(self).toOpaque())
    guard result == 0 else {
      Unmanaged.passUnretained(self).release()
      throw .thread(name, errno: result)
    }
    Self.wait(isUp)
    guard pinning == 0 else {
      join()
      throw .core(core ?? -1, errno: pinning)
    }
  }

  deinit {
    sem_destroy(isUp)
    sem_destroy(begin)
    sem_destroy(done)
    isUp.deallocate()
    begin.deallocate()
    done.deallocate()
  }

  /// Gives the thread work; what it had before is done.
  func start(_ work: sending @escaping () -> Void) {
    self.work = work
    sem_post(begin)
  }

  /// Waits until the work that it was given is done.
  func finishWork() { Self.wait(done) }

  /// Ends the thread, whose work, if it has any, is about to end. Call it once.
  func join() {
    sem_post(begin)
    pthread_join(thread, nil)
  }

  private func live() -> UnsafeMutableRawPointer? {
    _ = name.withCString { linux_prctl(PR_SET_NAME, UInt(bitPattern: $0), 0, 0, 0) }
    if let core { pinning = -linux_run_on_core(Int32(core)) }
    // The thread's own cache of the heap is made here, while that still may take any system call.
    free(malloc(64))
    sem_post(isUp)
    while true {
      Self.wait(begin)
      guard let work else { return nil }
      work()
      self.work = nil
      sem_post(done)
    }
  }

  private static func wait(_ semaphore: UnsafeMutablePointer<sem_t>) {
    while sem_wait(semaphore) != 0 {}
  }
}
