import CLinux
import Channel
import Glibc

/// A stage that a program has, by its kind: what a policy names.
public struct InstalledStage: Sendable {
  /// What the policy names.
  public let kind: String
  @usableFromInline let run: @Sendable (StageProcess) throws(StageError) -> Void
  @usableFromInline
  let bench:
    @Sendable (String, StageInterface, [BenchPacket]) throws(StageError) -> StageBenchResult

  /// A stage with its loop, compiled for it.
  /// - Parameters:
  ///   - kind: what the policy names.
  ///   - stage: its type.
  @inlinable
  public init<Stage: PacketStage & ~Copyable>(_ kind: String, _ stage: Stage.Type) {
    self.kind = kind
    run = { (process) throws(StageError) in
      let made = try Stage(process.configuration, process.interface)
      var loop = try StageLoop(made, process)
      try process.closeLoop()
      try loop.run()
    }
    bench = { (configuration, interface, packets) throws(StageError) in
      var bench = try StageBench<Stage>(
        configuration, interface: interface,
        packetBytes: packets.reduce(2048) { max($0, $1.bytes.count) })
      return bench.run(packets)
    }
  }

  /// Sends packets through a stage of this kind, without any run: see ``StageBench``.
  /// - Parameters:
  ///   - packets: in the order of their times.
  ///   - configuration: of the stage.
  ///   - interface: that it stands before.
  /// - Throws: what is wrong in the configuration.
  public func test(
    _ packets: [BenchPacket], configuration: String = "",
    interface: StageInterface = StageInterface()
  ) throws(StageError) -> StageBenchResult {
    try bench(configuration, interface, packets)
  }
}

/// A program that is a stage, or one of several by their kinds: the whole of its `main.swift`.
///
///     StageProgram.main([InstalledStage("mine", Mine.self)])
///
/// A supervisor starts it, with its descriptors (`StageDescriptor`).
public enum StageProgram {
  /// Runs the stage that the command line names, or the only one there is, until its end.
  public static func main(_ stages: [InstalledStage]) -> Never {
    let isStarted = fcntl(StageDescriptor.control.rawValue, F_GETFD) >= 0
    if isStarted {
      _ = StageDescriptor.processName.withCString {
        linux_prctl(PR_SET_NAME, UInt(bitPattern: $0), 0, 0, 0)
      }
    }
    do throws(StageError) {
      let arguments = try StageArguments(Array(CommandLine.arguments.dropFirst()))
      let process = try StageProcess(arguments, confining: arguments.isConfined)
      let stage = try choose(from: stages, arguments.kind)
      try process.close()
      try stage.run(process)
      exit(0)
    } catch {
      let isHeard =
        isStarted && ControlMessage.send("error \(error)", to: StageDescriptor.control.rawValue)
      if !isHeard {
        let advice =
          isStarted
          ? "" : " (martlet starts it; `martlet stage test` sends a capture through a stage)"
        let line = Array("\(CommandLine.arguments[0]): \(error)\(advice)\n".utf8)
        _ = write(STDERR_FILENO, line, line.count)
      }
      exit(1)
    }
  }

  static func choose(
    from stages: [InstalledStage], _ kind: String
  ) throws(StageError) -> InstalledStage {
    if stages.count == 1 && kind.isEmpty { return stages[0] }
    guard let stage = stages.first(where: { $0.kind == kind }) else {
      let kinds = stages.map(\.kind).sorted().joined(separator: ", ")
      throw StageError("there is no stage of the kind \(kind): there are \(kinds)")
    }
    return stage
  }
}
