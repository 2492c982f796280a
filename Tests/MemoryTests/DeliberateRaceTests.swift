import Glibc
import Testing

/// For Tests/Threads/run.sh, which has to see each of them: a sanitizer that is blind would look like a good one.
@Suite(.enabled(if: getenv("MARTLET_RACE") != nil)) struct DeliberateRaceTests {
  @Test func wordsAreWrittenByTwo() {
    race { memory in
      for number in 0..<10_000 { memory.storeBytes(of: number, as: Int.self) }
    }
  }

  /// By memcpy(3), as slots get into rings.
  @Test func copiesAreWrittenByTwo() {
    race { memory in
      for _ in 0..<10_000 { memory.copyMemory(from: memory + 64, byteCount: 64) }
    }
  }

  private func race(_ write: @convention(c) (UnsafeMutableRawPointer) -> Void) {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 64)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: 128)
    let work = UnsafeMutablePointer<Work>.allocate(capacity: 1)
    defer { work.deallocate() }
    work.initialize(to: Work(memory: memory, write: write))
    var thread = pthread_t()
    let result = pthread_create(
      &thread, nil,
      { argument in
        let work = argument!.assumingMemoryBound(to: Work.self).pointee
        work.write(work.memory)
        return nil
      }, work)
    write(memory)
    pthread_join(thread, nil)
    #expect(result == 0)
  }

  private struct Work {
    let memory: UnsafeMutableRawPointer
    let write: @convention(c) (UnsafeMutableRawPointer) -> Void
  }
}
