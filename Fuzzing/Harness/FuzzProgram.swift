import Glibc

/// Targets that are fuzzed by one program: those that need the same parts of the system, because the coverage of all of
/// a program is looked at after each input.
public struct FuzzProgram: Sendable {
  private let targets: [FuzzTarget]
  /// What MARTLET_FUZZ_TARGET names: libFuzzer has the command line for itself, and hands it to processes of its own.
  private let run: (@Sendable (FuzzInput) -> Void)?

  public init(_ targets: [FuzzTarget]) {
    self.targets = targets
    let name = getenv("MARTLET_FUZZ_TARGET").map { String(cString: $0) }
    run = targets.first { $0.name == name }?.run
  }

  /// Without a target of this program, its targets are named, and that is the end.
  public func begin() {
    if run != nil { return }
    for target in targets { print(target.name) }
    exit(getenv("MARTLET_FUZZ_TARGET") == nil ? 0 : 1)
  }

  public func test(_ data: UnsafeRawPointer, _ byteCount: Int) {
    run!(FuzzInput(UnsafeRawBufferPointer(start: data, count: byteCount)))
  }
}
