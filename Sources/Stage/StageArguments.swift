import Channel
import Glibc

/// The command line of a stage's process, as its supervisor writes it.
struct StageArguments: Sendable {
  /// The stage's name in the policy.
  var name = "stage"
  /// Which of the program's stages.
  var kind = ""
  var queues = 1
  /// Slots of each ring.
  var slots = 256
  var arenaBytes = 0
  /// 48 bits, the first byte on the wire highest.
  var station: UInt64 = 0
  var mtu = 1500
  var mode = PollMode.adaptive
  var isConfined = true

  init() {}

  /// - Parameter arguments: without the program's name: `--name value` pairs.
  init(_ arguments: [String]) throws(StageError) {
    var index = 0
    while index < arguments.count {
      let name = arguments[index]
      guard index + 1 < arguments.count else { throw StageError("\(name) lacks its value") }
      try set(name, arguments[index + 1])
      index += 2
    }
  }

  private mutating func set(_ name: String, _ value: String) throws(StageError) {
    switch name {
    case "--name": self.name = value
    case "--kind": kind = value
    case "--queues": queues = try Self.number(name, value)
    case "--slots": slots = try Self.number(name, value)
    case "--arena-bytes": arenaBytes = try Self.number(name, value)
    case "--mtu": mtu = try Self.number(name, value)
    case "--mac": station = try Self.station(name, value)
    case "--mode":
      guard let chosen = PollMode(rawValue: value) else { throw Self.bad(name, value) }
      mode = chosen
    case "--confined":
      guard value == "yes" || value == "no" else { throw Self.bad(name, value) }
      isConfined = value == "yes"
    default: throw StageError("\(name) is not an option of a stage's program")
    }
  }

  private static func number(_ name: String, _ text: String) throws(StageError) -> Int {
    guard let value = Int(text), value >= 0 else { throw bad(name, text) }
    return value
  }

  private static func station(_ name: String, _ text: String) throws(StageError) -> UInt64 {
    let bytes = text.split(separator: ":", omittingEmptySubsequences: false)
      .map { $0.utf8.count == 2 ? UInt8($0, radix: 16) : nil }
    guard bytes.count == 6, !bytes.contains(nil) else { throw bad(name, text) }
    return bytes.reduce(0) { $0 << 8 | UInt64($1 ?? 0) }
  }

  private static func bad(_ name: String, _ value: String) -> StageError {
    StageError("\(value) is no value of \(name)")
  }

  var interface: StageInterface {
    StageInterface(name: name, queues: queues, station: station, mtu: mtu)
  }
}
