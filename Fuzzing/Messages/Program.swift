import FuzzHarness

/// Every target of this program: one line each.
private let program = FuzzProgram([
  vfioUserMessages,
  versionMessage,
  vhostUserMessages,
  claims,
  rules,
  classifier,
  attachRequests,
  welcomes,
  traces,
  violations,
  filters,
  stages,
  httpRequests,
])

/// libFuzzer's main function calls this first (llvm.org/docs/LibFuzzer.html).
@_cdecl("LLVMFuzzerInitialize")
public func initialize(
  _ count: UnsafeMutablePointer<Int32>, _ arguments: UnsafeMutableRawPointer
) -> Int32 {
  program.begin()
  return 0
}

/// And this for each input.
@_cdecl("LLVMFuzzerTestOneInput")
public func test(_ data: UnsafeRawPointer, _ byteCount: Int) -> Int32 {
  program.test(data, byteCount)
  return 0
}
