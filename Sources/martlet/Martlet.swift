import ArgumentParser

@main
struct Martlet: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "martlet",
    abstract:
      "User-space network drivers, confined, with protocol stacks in processes of their own.",
    subcommands: [
      Run.self, Attach.self, PolicyCommand.self, RulesCommand.self, StageCommand.self, Stats.self,
      TopCommand.self,
      Metrics.self, MemoryCommand.self, Close.self, Revoke.self, Grow.self, Shrink.self,
      Restart.self, CaptureCommand.self, FollowCommand.self, Extcap.self,
      Replay.self, Status.self, Serve.self, Devices.self, Doctor.self, Bind.self,
      Unbind.self, NewDriverCommand.self, Bench.self, BenchEnd.self, Pattern.self,
      HoldNamespace.self,
      KeepHugepages.self, HandlesCommand.self,
    ])
}
