import CSeccomp
import Glibc

/// A list of system calls, assembled and loaded by libseccomp: of all that are allowed, or of those that are not. With a list
/// of what is allowed any other call raises SIGSYS, which ends the process (``Confinement/enter(reportingTo:)``), as do calls of
/// another architecture. Of several filters each must allow a call.
struct SystemCallFilter: Sendable {
  /// A call, and what must hold of its arguments.
  struct Rule: Sendable {
    var call: String
    var conditions: [Condition]

    init(_ call: String, _ conditions: Condition...) {
      self.call = call
      self.conditions = conditions
    }
  }

  /// `argument & mask == value`.
  struct Condition: Sendable {
    var argument: UInt32
    var mask: UInt64
    var value: UInt64

    /// A 32-bit argument is this: a descriptor, a command, a signal.
    static func argument(_ index: UInt32, is value: Int32) -> Condition {
      Condition(argument: index, mask: 0xffff_ffff, value: UInt64(UInt32(bitPattern: value)))
    }

    /// An argument has none but these bits.
    static func argument(_ index: UInt32, within bits: Int32) -> Condition {
      Condition(argument: index, mask: ~UInt64(UInt32(bitPattern: bits)), value: 0)
    }
  }

  var rules: [Rule]
  /// What becomes of all other calls.
  var others = Action.end

  /// What the kernel does. Rules do the opposite.
  enum Action: UInt32, Sendable {
    // SCMP_ACT_TRAP, SCMP_ACT_ALLOW and SCMP_ACT_ERRNO(EPERM) are macros with casts.
    case end = 0x0003_0000
    case allow = 0x7fff_0000
    case refuse = 0x0005_0001
  }

  /// Loads the filter into all threads of this process, for good.
  func load() throws(ConfinementError) {
    let isAllowList = others != .allow
    guard let context = seccomp_init(others.rawValue) else {
      throw ConfinementError(step: "system call filter", errno: ENOMEM)
    }
    defer { seccomp_release(context) }
    for (attribute, value) in [
      (SCMP_FLTATR_CTL_TSYNC, 1),
      (SCMP_FLTATR_ACT_BADARCH, isAllowList ? others.rawValue : Action.refuse.rawValue),
      // The kernel's log is the second source of what was refused.
      (SCMP_FLTATR_CTL_LOG, isAllowList ? 1 : 0),
    ] {
      let result = seccomp_attr_set(context, attribute, value)
      if result < 0 { throw ConfinementError(step: "system call filter", errno: -result) }
    }
    let action = isAllowList ? Action.allow : .refuse
    for rule in rules {
      let number = seccomp_syscall_resolve_name(rule.call)
      // A call that this architecture does not have needs no rule.
      if number < 0 { continue }
      let comparisons = rule.conditions.map {
        scmp_arg_cmp(
          arg: $0.argument, op: SCMP_CMP_MASKED_EQ, datum_a: $0.mask, datum_b: $0.value)
      }
      let result = seccomp_rule_add_array(
        context, action.rawValue, number, UInt32(comparisons.count), comparisons)
      if result < 0 { throw ConfinementError(step: "system call \(rule.call)", errno: -result) }
    }
    let result = seccomp_load(context)
    if result < 0 { throw ConfinementError(step: "system call filter", errno: -result) }
  }
}
