import VFIO

/// A driver host that is started and confined before it is needed, so that it can go on at once where another one fails. It
/// has the run's memory and no device. One thread.
final class StandbyHost {
  private var process: HostProcess?
  private let isWanted: Bool
  /// When it is to be started or looked at, in milliseconds of the monotonic clock.
  private(set) var due: UInt64
  private var failures = 0

  /// Not while the one that it stands by for begins.
  private static let delay: UInt64 = 100
  private static let period: UInt64 = 10_000

  init(isWanted: Bool, at now: UInt64) {
    self.isWanted = isWanted
    due = isWanted ? now + Self.delay : .max
  }

  /// When it becomes readable, ``step(_:on:_:at:)`` is due; -1 for never.
  var descriptor: Int32 { process?.gate ?? -1 }

  /// Starts it where it is due, and waits for nothing: a host may fail meanwhile. Where that does not go well, there is none:
  /// the next host is started when it is needed.
  func step(
    _ plan: RunPlan, on access: any DeviceAccess, _ resources: HostProcess.Resources,
    at now: UInt64
  ) {
    if let process, process.gate >= 0, isReadable(process.gate) {
      do throws(SupervisorError) {
        try process.admit()
      } catch {
        process.kill()
        self.process = nil
        failures += 1
      }
    }
    if now < due { return }
    due = now + Self.period
    if let process, !process.isOver, process.program == plan.hostProgram { return }
    process?.kill()
    process = nil
    do throws(SupervisorError) {
      process = try HostProcess(plan, on: access, resources, .standby)
    } catch {
      failures += 1
      if failures > 3 { due = .max }
    }
  }

  /// A host has begun: the next one to stand by has time.
  func postpone(at now: UInt64) { if isWanted && failures <= 3 { due = now + Self.delay } }

  /// - Returns: the one that stands by, the caller's from now on; nil where there is none of that program that has begun.
  func take(program: String) -> HostProcess? {
    defer { process = nil }
    guard let process, process.program == program, process.gate < 0, !process.isOver
    else { return nil }
    return process
  }

  func end() {
    process?.kill()
    process = nil
    due = .max
  }
}
