import ControlLoops
import Glibc
import Memory

/// The C control's ring from one thread to another.
enum ControlRing {
  /// - Returns: millions of descriptors a second.
  static func measure(burst: Int, milliseconds: Int) -> Sample {
    // Invariant: indices, the stop word and 1024 slots, zeroed, until both threads have ended.
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 32 << 10, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: 32 << 10)
    defer { memory.deallocate() }
    let (own, peer, slots) = (memory, memory + 64, memory + 4096)
    let stop = (memory + 128).assumingMemoryBound(to: UInt32.self)
    guard let producer = control_ring_make(slots, 1024, own, peer),
      let consumer = control_ring_make(slots, 1024, peer, own)
    else { return Sample([0], cpuShare: 0) }
    defer {
      control_ring_free(producer)
      control_ring_free(consumer)
    }
    nonisolated(unsafe) let shared = (producer: producer, consumer: consumer, stop: stop)
    let first = PinnedThread(core: 0) {
      _ = control_ring_produce(shared.producer, UInt32(burst), shared.stop)
      return 0
    }
    let second = PinnedThread(core: 1) {
      let watch = Stopwatch()
      let taken = control_ring_consume(shared.consumer, UInt32(burst), shared.stop)
      return Double(taken) * 1000 / Double(watch.elapsed)
    }
    pause(milliseconds: milliseconds)
    stop.pointee = 1
    let (producing, consuming) = (first.join(), second.join())
    return Sample([consuming.value], cpuShare: min(producing.cpuShare, consuming.cpuShare))
  }
}

/// A thread on a core of its own that gives one number.
final class PinnedThread {
  private final class Work {
    let core: Int
    let body: @Sendable () -> Double
    var value = 0.0
    var cpuShare = 0.0

    init(core: Int, body: @escaping @Sendable () -> Double) {
      self.core = core
      self.body = body
    }
  }

  private let work: Work
  private var thread = pthread_t()

  init(core: Int, _ body: @escaping @Sendable () -> Double) {
    work = Work(core: core, body: body)
    // The work is held by this object until the thread has been joined.
    pthread_create(
      &thread, nil,
      { context in
        let work = Unmanaged<Work>.fromOpaque(context!).takeUnretainedValue()
        pinThread(toCore: work.core)
        let watch = Stopwatch()
        work.value = work.body()
        work.cpuShare = watch.cpuShare
        return nil
      }, Unmanaged.passUnretained(work).toOpaque())
  }

  func join() -> (value: Double, cpuShare: Double) {
    pthread_join(thread, nil)
    return (work.value, work.cpuShare)
  }
}
