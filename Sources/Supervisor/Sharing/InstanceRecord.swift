import Channel
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
  /// Goes with each of its commands.
  public let credential: CredentialID
  public let weight: Int
  /// Where its place in the window begins, in bytes.
  public let slot: Int
  public let receiveBytes: Int
  public let guaranteedBytes: Int
  public let maximumBytes: Int
  /// Bytes of applications' memory that it may register, behind all that its arena can grow to.
  public let registeredBytes: Int
  /// Of its arena as it is now.
  public var arenaBytes: Int

  /// Where registered memory begins, in bytes from its arena's start.
  public var registeredAt: Int { WindowPlan.rounded(maximumBytes) }

  public var index: Int { Int(id & 0xff) }
  public var generation: UInt32 { id >> 8 }
}
