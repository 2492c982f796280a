import Supervisor

/// A policy file.
let policies = FuzzTarget("policies") { input in
  do throws(PolicyError) {
    _ = try Policy(text: input.text, user: 0).rule(for: "web")
  } catch {
    require(!error.problems.isEmpty, "refused without a reason")
    require(error.problems.allSatisfy { $0.line > 0 }, "a problem without a line")
    _ = error.description
  }
}
