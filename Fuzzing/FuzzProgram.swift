import Glibc

/// Every target: one line each.
let targets = [
  vfioUserMessages,
  versionMessage,
  vhostUserMessages,
  claims,
  attachRequests,
  welcomes,
  traces,
  capabilities,
  splitQueue,
  packedQueue,
  packetPath,
  delivery,
  policies,
  commandServer,
  commandClient,
  sharedPath,
  virtioNetSplit,
  virtioNetPacked,
  virtioNetRace,
  e1000e,
  violations,
]

/// What MARTLET_FUZZ_TARGET names: libFuzzer has the command line for itself, and hands it to processes of its own.
private let chosen: FuzzTarget? = {
  guard let name = getenv("MARTLET_FUZZ_TARGET") else { return nil }
  return targets.first { $0.name == String(cString: name) }
}()

/// libFuzzer's main function calls this first (llvm.org/docs/LibFuzzer.html).
@_cdecl("LLVMFuzzerInitialize")
public func initialize(
  _ count: UnsafeMutablePointer<Int32>, _ arguments: UnsafeMutableRawPointer
) -> Int32 {
  if chosen == nil {
    for target in targets { print(target.name) }
    exit(getenv("MARTLET_FUZZ_TARGET") == nil ? 0 : 1)
  }
  return 0
}

/// And this for each input.
@_cdecl("LLVMFuzzerTestOneInput")
public func test(_ data: UnsafeRawPointer, _ byteCount: Int) -> Int32 {
  chosen!.run(FuzzInput(UnsafeRawBufferPointer(start: data, count: byteCount)))
  return 0
}
