import Glibc
import Steering

/// Who may become an instance on a shared NIC, and what each gets: read from a file, or what is usual without one.
public struct Policy: Sendable, Equatable {
  /// Of the socket's file; nil for whoever runs the supervisor.
  public var owner: uid_t?
  public var group: gid_t?
  /// Permissions of the socket's file.
  public var mode: mode_t = 0o600
  /// Users that may attach where an instance names none of its own.
  public var users: Set<uid_t>
  /// Users that may read statistics and close instances.
  public var administrators: Set<uid_t>
  /// Connections that one user may have at once.
  public var connectionsPerUser = 16
  /// What an instance gets that no other rule names; nil where such ones are refused.
  public var unnamed: InstanceRule?
  public var instances: [InstanceRule] = []
  public var memory = MemoryRule()
  /// What packets go through, the first one nearest to the wire.
  public var stages: [StageRule] = []

  /// Without a file: the supervisor's own user and root, with what nobody else has claimed.
  public static func usual(user: uid_t = geteuid()) -> Policy {
    var policy = Policy(user: user)
    policy.unnamed = InstanceRule()
    return policy
  }

  init(user: uid_t) {
    users = [user, 0]
    administrators = [user, 0]
  }

  /// The rule for an instance of that name.
  public func rule(for name: String) -> InstanceRule? {
    instances.first { $0.name == name } ?? unnamed
  }

  /// Whether an instance of this rule may have the claim as far as other rules go: what one of them names exactly is
  /// kept for it.
  func isFree(_ claim: Claim, for rule: InstanceRule) -> Bool {
    rule.namesExactly(claim)
      || !instances.contains { other in
        other.name != rule.name
          && other.claims.contains { limit in
            limit.exactClaim.map { limit.allows(claim) || $0.excludes(claim) } ?? false
          }
      }
  }

  /// Bytes of the largest place that an instance can have in the window.
  var largestInstance: Int {
    (instances + [unnamed].compactMap(\.self)).map {
      WindowPlan.rounded($0.maximumBytes) + $0.registeredBytes
    }.max() ?? 0
  }

  /// All that it names: who may ask the broker of memory handles.
  var everybody: Set<uid_t> {
    instances.reduce(users.union(administrators)) { $0.union($1.users ?? []) }
  }
}

/// How memory moves between the instances of a NIC and the system.
public struct MemoryRule: Sendable, Equatable {
  /// Bytes that all instances may have together; nil for as much as the system has.
  public var budget: Int?
  /// How long an instance has to let go of memory.
  public var letGoMilliseconds: UInt64 = 2000
  /// After how long without traffic an instance counts as idle.
  public var idleMilliseconds: UInt64 = 5000
  /// When the kernel is to say that memory is short (Linux, Documentation/accounting/psi.rst); nil for never.
  public var pressure: String? = "some 300000 2000000"
}

/// What an instance may have.
public struct InstanceRule: Sendable, Equatable {
  /// Empty for those that no rule names.
  public var name = ""
  /// nil for the policy's own list.
  public var users: Set<uid_t>?
  /// SHA-256 of the token that the instance has to know; nil where it needs none.
  public var tokenDigest: [UInt8]?
  public var claims: [ClaimLimit] = [.any]
  /// Bytes that it has from the start on, and as long as it lives.
  public var guaranteedBytes = 16 << 20
  /// Bytes that it may grow to.
  public var maximumBytes = 64 << 20
  /// Bytes of applications' own memory that it may have registered at once.
  public var registeredBytes = 64 << 20
  /// Slots of each ring of its channel.
  public var slots = 4096
  /// Its part of the host's time, beside the others'.
  public var weight = 1
  /// Percent of each queue thread's time that it gets at most, whether or not others want it.
  public var timePercent = 100
  /// Received segments that it may hold; nil for as many as its receive part has.
  public var segments: Int?
  /// How long its credential is valid.
  public var credentialSeconds = 86400

  /// Whether the policy means this claim, and not only a range that it lies in.
  func namesExactly(_ claim: Claim) -> Bool {
    claims.contains { $0.exactClaim != nil && $0.allows(claim) }
  }

  /// Whether the claim is among those that it may make.
  func allows(_ claim: Claim) -> Bool { claims.contains { $0.allows(claim) } }
}
