import CLinux
import Channel
import Glibc

/// Asks the supervisor for more memory over the command channel, once at a time and without waiting.
final class MemoryRequest {
  private var client: CommandClient
  private var isOpen = false
  /// Not before, in milliseconds of the monotonic clock: who has just been refused does not ask in every turn.
  private var nextTime: UInt64 = 0

  /// How long a refusal is good for, in milliseconds.
  private static let pause: UInt64 = 100

  init(_ client: consuming CommandClient) { self.client = client }

  /// Asks where nothing is being asked for.
  func ask(_ byteCount: Int) {
    guard !isOpen else { return look() }
    let now = Self.now
    if now < nextTime { return }
    let command = CommandSubmission(.grow, UInt64(byteCount))
    isOpen = (try? client.submit(command)) != nil
    nextTime = now + Self.pause
  }

  private func look() {
    do throws(CommandError) {
      guard try client.poll() != nil else { return }
      nextTime = Self.now + Self.pause
      isOpen = false
    } catch {
      // Without a server nobody gives anything.
      nextTime = .max
      isOpen = false
    }
  }

  private static var now: UInt64 { clock_nanoseconds(CLOCK_MONOTONIC_COARSE) / 1_000_000 }
}

extension InstanceEnvironment {
  /// Bytes that the arena may still grow by.
  public var growthLeft: Int { max(0, welcome.maximumBytes - arena.byteCount) }

  /// Asks the supervisor for more memory, and does not wait: it comes as an event of the stack
  /// (``StackInstance/memoryDidGrow(to:)``), or not at all. Nothing where the arena has its maximum, or has just been
  /// refused some. Once an instance: the command channel is not ``makeCommandClient()``'s any more.
  public func askForMemory(_ byteCount: Int) throws(StackError) {
    let wanted = min(byteCount, growthLeft)
    if wanted <= 0 { return }
    if request == nil {
      guard let client = try makeCommandClient() else { return }
      request = MemoryRequest(client)
    }
    request?.ask(wanted)
  }
}
