import Glibc
import Loops
import Supervisor

/// Instructions a packet of one loop: exact, and the same on a busy machine.
public struct InstructionCount: Sendable, Equatable {
  public var loop: String
  /// Without those of the device that is only memory.
  public var perPacket: Double
  /// Functions that cost at least half an instruction a packet, by themselves; most first.
  public var functions: [Function]

  public struct Function: Sendable, Equatable {
    public var name: String
    public var perPacket: Double
  }
}

/// Counts by running `martlet-loops` under callgrind twice, once for longer: the difference is the loop alone.
public struct InstructionCounter {
  private let valgrind: Tool
  private let environment: Tool
  private let program: String
  private let folder: ScratchFolder
  private static let bursts = 500

  /// - Throws: where valgrind or the program is missing.
  public init() throws {
    valgrind = try Tool("valgrind", package: "valgrind")
    // Debian's valgrind is a script, which only a program that looks it up again can start.
    environment = try Tool("env", package: "coreutils")
    let strip = try Tool("strip", package: "binutils")
    folder = try ScratchFolder()
    program = folder.path + "/martlet-loops"
    // valgrind before 3.20 cannot read the debug information that Swift writes (DWARF 5).
    let stripped = try strip.run(["-g", "-o", program, Programs.loops], withinMilliseconds: 60_000)
    guard case .exited(0) = stripped.end else {
      throw SupervisorError.input("\(Programs.loops) is not there: build it with `make build`")
    }
  }

  private var profilePath: String { folder.path + "/profile" }

  /// - Returns: nil where the driver has no such path.
  public func count(_ loop: PathLoopName) throws -> InstructionCount? {
    guard let short = try run(loop, bursts: Self.bursts),
      let long = try run(loop, bursts: 2 * Self.bursts)
    else { return nil }
    let packets = Double(Self.bursts * 32)
    var functions: [InstructionCount.Function] = []
    var sum = 0.0
    for (name, cost) in long where !name.hasPrefix("raw_device_") {
      let perPacket = Double(cost - short[name, default: 0]) / packets
      sum += perPacket
      if perPacket >= 0.5 { functions.append(.init(name: demangled(name), perPacket: perPacket)) }
    }
    functions.sort { ($0.perPacket, $1.name) > ($1.perPacket, $0.name) }
    return InstructionCount(loop: loop.rawValue, perPacket: sum, functions: functions)
  }

  private func run(_ loop: PathLoopName, bursts: Int) throws -> [String: Int]? {
    let result = try environment.run(
      [
        valgrind.path, "--tool=callgrind", "--callgrind-out-file=\(profilePath)", program,
        loop.rawValue,
        "\(bursts)",
      ], withinMilliseconds: 120_000)
    if result.output.contains("does not use packed rings") { return nil }
    guard case .exited(0) = result.end else {
      throw SupervisorError.input("valgrind \(result.end): \(result.output.suffix(400))")
    }
    return CallgrindProfile(try readText(profilePath)[...]).instructions
  }
}

@_silgen_name("swift_demangle")
private func swiftDemangle(
  _ name: UnsafePointer<CChar>, _ length: UInt, _ buffer: UnsafeMutablePointer<CChar>?,
  _ size: UnsafeMutablePointer<UInt>?, _ flags: UInt32
) -> UnsafeMutablePointer<CChar>?

/// A function's name as people know it, on one line.
func demangled(_ name: String) -> String {
  // callgrind marks what calls itself, directly or not.
  let plain = name.split(separator: "'").first.map(String.init) ?? name
  guard let text = swiftDemangle(plain, UInt(plain.utf8.count), nil, nil, 0) else { return plain }
  defer { free(text) }
  return withoutFileMarks(String(cString: text))
}

/// What is private to a file is written `(name in _HASH)`: the name alone stays.
private func withoutFileMarks(_ text: String) -> String {
  var result = ""
  var rest = text[...]
  while let open = rest.firstIndex(of: "("), let close = rest[open...].firstIndex(of: ")") {
    let inside = rest[rest.index(after: open)..<close].split(separator: " ")
    let isMarked = inside.count == 3 && inside[1] == "in" && inside[2].hasPrefix("_")
    result += rest[..<open] + (isMarked ? inside[0] : rest[open...open])
    rest = isMarked ? rest[rest.index(after: close)...] : rest[rest.index(after: open)...]
  }
  return result + rest
}
