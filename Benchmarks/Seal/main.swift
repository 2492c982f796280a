import Benchmarks
import Crypto
import Driver
import Glibc
import Loops
import Memory
import PacketSeal

/// Seals packets for some milliseconds, when they leave or when they are made, and prints nanoseconds a packet and the
/// share of its core that it got: what `martlet bench` runs for its rows on sealing. A program of its own, so that nothing
/// else is built with a library of ciphers.
let words = CommandLine.arguments.dropFirst().compactMap { Int($0) }
guard words.count == 3, (0...3).contains(words[0]), words[2] > 0 else {
  print("usage: martlet-seal-loop CANCELLED-OF-4 EAGER(0|1) MILLISECONDS")
  exit(64)
}
do {
  var loop = try LastMomentLoop(
    PacketSeal(key: SymmetricKey(size: .bits256), clearBytes: 14), request: Offload(),
    byteCount: 1500, cancelledOf4: words[0], isEager: words[1] == 1)
  let sample = try timed(&loop, milliseconds: words[2])
  print(sample.values[0], sample.cpuShare)
} catch {
  print(error)
  exit(1)
}
