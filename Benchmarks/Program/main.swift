import Glibc
import Loops

/// Runs one loop so many bursts: what `martlet bench instructions` counts. Ends with 1 where the driver has no such
/// path, 64 for wrong arguments.
struct Runner: PathLoopVisitor {
  var bursts: Int
  func visit<L: PathLoop & ~Copyable>(_ loop: consuming L) throws -> Int {
    try loop.run(bursts: bursts)
  }
}

guard CommandLine.arguments.count == 3, let name = PathLoopName(rawValue: CommandLine.arguments[1]),
  let bursts = Int(CommandLine.arguments[2]), bursts >= 0
else {
  print("usage: martlet-loops LOOP BURSTS; loops:", PathLoopName.allCases.map(\.rawValue))
  exit(64)
}
do {
  print(try name.visit(Runner(bursts: bursts)))
} catch {
  print(error)
  exit(1)
}
