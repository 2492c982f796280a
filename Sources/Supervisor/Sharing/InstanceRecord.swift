import CLinux
import Glibc
import Steering

/// What the supervisor knows of an instance: the part that others, such as the server of commands, look at.
public struct InstanceRecord: Sendable, Equatable {
  /// Slot index and generation: `index | generation << 8`. A slot that is used again has another generation.
  public let id: UInt32
  public let name: String
  public let uid: uid_t
  public let pid: pid_t
  public var claims: [Claim]
  public let credential: Credential
  public let weight: Int
  /// Where its place in the window begins, in bytes.
  public let slot: Int
  public let receiveBytes: Int
  public let guaranteedBytes: Int
  public let maximumBytes: Int
  /// Of its arena as it is now.
  public var arenaBytes: Int

  public var index: Int { Int(id & 0xff) }
  public var generation: UInt32 { id >> 8 }
}

/// What an instance shows with each command: random, and good for a time.
public struct Credential: Sendable, Equatable {
  /// 128 bits.
  public let bytes: [UInt8]
  /// Milliseconds of the monotonic clock.
  public let expiry: UInt64

  init(seconds: Int, now: UInt64) throws(SupervisorError) {
    var random = [UInt8](repeating: 0, count: 16)
    let result = linux_random(&random, random.count)
    guard result == 0 else { throw .system("getrandom", -result) }
    bytes = random
    expiry = now + UInt64(seconds) * 1000
  }

  /// Whether it is the same and still good. Takes as long wherever the difference is.
  public func accepts(_ shown: [UInt8], at now: UInt64) -> Bool {
    guard shown.count == bytes.count, now < expiry else { return false }
    return zip(bytes, shown).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
  }
}
