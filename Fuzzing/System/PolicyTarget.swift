import FuzzHarness
import Supervisor

/// A policy file. What TOMLKit leaves behind of a file that it refuses is not counted: a file is read once.
let policies = FuzzTarget("policies") { input in
  disableLeakCheck()
  defer { enableLeakCheck() }
  do throws(PolicyError) {
    _ = try Policy(text: input.text, user: 0).rule(for: "web")
  } catch {
    require(!error.problems.isEmpty, "refused without a reason")
    require(error.problems.allSatisfy { $0.line > 0 }, "a problem without a line")
    _ = error.description
  }
}

/// sanitizer/lsan_interface.h
@_silgen_name("__lsan_disable") private func disableLeakCheck()
@_silgen_name("__lsan_enable") private func enableLeakCheck()
