import CSeccomp
import Glibc

/// An allow list of system calls, assembled and loaded by libseccomp. Whatever is not listed raises SIGSYS, which ends the
/// process (``Confinement/enter(reportingTo:)``), as do calls of another architecture. Of several filters each must allow a call.
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

  /// Loads the filter into all threads of this process, for good.
  func load() throws(ConfinementError) {
    // SCMP_ACT_TRAP and SCMP_ACT_ALLOW are macros with casts.
    let trap: UInt32 = 0x0003_0000
    let allow: UInt32 = 0x7fff_0000
    guard let context = seccomp_init(trap) else {
      throw ConfinementError(step: "system call filter", errno: ENOMEM)
    }
    defer { seccomp_release(context) }
    for (attribute, value) in [
      (SCMP_FLTATR_CTL_TSYNC, 1), (SCMP_FLTATR_ACT_BADARCH, trap),
      // The kernel's log is the second source of what was refused.
      (SCMP_FLTATR_CTL_LOG, 1),
    ] {
      let result = seccomp_attr_set(context, attribute, value)
      if result < 0 { throw ConfinementError(step: "system call filter", errno: -result) }
    }
    for rule in rules {
      let number = seccomp_syscall_resolve_name(rule.call)
      // A call that this architecture does not have needs no rule.
      if number < 0 { continue }
      let comparisons = rule.conditions.map {
        scmp_arg_cmp(
          arg: $0.argument, op: SCMP_CMP_MASKED_EQ, datum_a: $0.mask, datum_b: $0.value)
      }
      let result = seccomp_rule_add_array(
        context, allow, number, UInt32(comparisons.count), comparisons)
      if result < 0 { throw ConfinementError(step: "system call \(rule.call)", errno: -result) }
    }
    let result = seccomp_load(context)
    if result < 0 { throw ConfinementError(step: "system call filter", errno: -result) }
  }
}
