import ArgumentParser
import Channel
import Confinement
import Glibc
import Memory
import PCIDiscovery
import Supervisor

/// `martlet run`: one NIC, one driver host, one stack instance.
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Drive a NIC and run a protocol stack on it.",
    discussion: """
      With the emulated device the far end of the wire is this machine's kernel, in a network namespace of its own: the \
      run pings the stack, fetches from its HTTP server, compares the checksum, and checks that the counters of wire, \
      device, driver, channel and stack agree. On a terminal it then stays until Ctrl-C. With a real device, or any \
      vfio-user server or vhost-user back-end, it runs until Ctrl-C.

      Exit code: 0 when all went well, 1 when a check or a process failed, 2 when there is no such device, 64 for \
      wrong arguments.
      """)

  @Option(
    help: ArgumentHelp(
      "emulated (or emulated:e1000e), a PCI address (0000:00:03.0) bound with `martlet bind`, vfio-user:SOCKET, or vhost-user:SOCKET.",
      valueName: "device"))
  var device = "emulated"

  @Option(
    help: ArgumentHelp(
      "The stack that gets the NIC: lwip (without this option), kernel, gvisor (after `make gvisor`), or sink, which reads each packet's header, counts, and answers nothing, to measure what comes in. A path names a program of your own with a StackInstance. With --share, the first of those that get it, or none (without this option).",
      valueName: "stack"))
  var stack: RunPlan.Stack?

  @Option(
    help: ArgumentHelp(
      "Share the NIC: instances attach over this UNIX socket (`martlet attach`) and go, while the run goes on.",
      valueName: "socket"))
  var share: String?

  @Option(
    help: ArgumentHelp(
      "With --share: who may attach, and what each gets (`martlet policy`). Without this, this user and root, with any addresses that nobody else has and 64 MiB each.",
      valueName: "file"))
  var policy: String?

  @Option(
    help: ArgumentHelp(
      "With --share: which packets go where before claims decide (`martlet rules`).",
      valueName: "file"))
  var rules: String?

  @Option(
    help: ArgumentHelp(
      "Without --share: listen here for `martlet stats` and `martlet restart`, from this user and root.",
      valueName: "socket"))
  var control: String?

  @Option(help: "The stack's IPv4 address with prefix length.")
  var address = "10.0.0.2/24"

  @Option(help: "The stack's gateway.")
  var gateway: String?

  @Option(
    help:
      "TCP port of the stack's HTTP server, and of the check's with the kernel stack; 0 for none.")
  var http: UInt16 = 80

  @Option(
    help:
      "poll: never sleep. yield: never sleep, but give the core up when idle: for threads that share cores. interrupt: sleep when idle. adaptive: poll for a moment first."
  )
  var mode = PollMode.adaptive

  @Option(
    help: ArgumentHelp(
      "The core of each queue pair's thread, such as 1,2, or any. Without this, cores of their own where there are enough.",
      valueName: "cores"))
  var cores: String?

  @Option(help: "Queue pairs, 1 to 16.")
  var queues = 1

  @Option(help: "Descriptors of each ring: a power of two, 16 to 32768.")
  var ringSize = 256

  @Option(help: "Bytes of the largest packet, 68 to 9000, where the device leaves the choice.")
  var mtu: Int?

  @Option(
    help: ArgumentHelp(
      "Features that the driver is to leave alone, parted by commas: packed, in-order, event-index, indirect, mergeable, checksum, segmentation (virtio-net).",
      valueName: "features"))
  var without: String?

  @Option(
    help: "MiB of memory for received packets, and as much for those to be sent: 16 to 4096, even.")
  var memory = 32

  @Option(help: "Pages: 2M, 1G or 4K. Without this, 2M where they can be had, else 4K.")
  var pages: String?

  @Option(
    help: "linear: the device sees memory at low addresses. virtual: where the programs see it.")
  var iova = "linear"

  @Option(help: "Bytes to fetch as a check with the emulated device; 0 for none.")
  var fetch = 100_000_000

  @Option(
    help:
      "Seconds to run; without this, until Ctrl-C (or, with the emulated device and no terminal, until the checks are done)."
  )
  var seconds: UInt64?

  @Option(
    help: "What the emulated wire ends in: kernel, stack, or automatic (the kernel if it can be).")
  var farEnd = RunPlan.FarEnd.automatic

  @Option(
    help: ArgumentHelp(
      "A driver host of your own, with your own drivers (`martlet new-driver --package`).",
      valueName: "program"))
  var host: String?

  @Option(
    help:
      "Failures of the driver host within 10 s after which the run ends: before, another one goes on. 1 ends it with the first."
  )
  var failures = 8

  @Flag(help: "Keep no driver host that stands by: where one fails, the next is started only then.")
  var noStandby = false

  @Flag(
    help: "Replace the driver host, and reset the device, when the IOMMU has stopped the device.")
  var restartOnIommuFault = false

  @Option(
    help: ArgumentHelp(
      "Write all that passes between driver and device to a file, for `martlet replay` and for tests. Such a run is slow: for a few packets, with one queue pair. The file holds the packets.",
      valueName: "file"))
  var record: String?

  @Flag(help: "Leave the driver host unconfined, to compare or to debug. Not for use.")
  var unsafeUnconfined = false

  @Option(help: ArgumentHelp("A fault to make on purpose.", visibility: .private))
  var inject: RunPlan.Fault?

  @Option(
    help: ArgumentHelp(
      "The emulated device does wrong each 5000 frames, in one of the ways of `martlet serve --misbehave`.",
      valueName: "way"))
  var misbehave: String?

  @Flag(help: "Print final counters as JSON.")
  var json = false

  func run() throws {
    let plan = try makePlan()
    do {
      try dropRights()
      if let share {
        let policy = try policy.map { try Policy(path: $0) } ?? .usual()
        let rules = try rules.map { try RuleFile(path: $0).rules }
        try SharedConsole(plan, seconds: seconds, json: json)
          .run(socket: share, policy: policy, rules: rules)
      } else {
        try RunConsole(plan, seconds: seconds, json: json).run()
      }
    } catch let error as PolicyError {
      writeLine("\(error)", to: 2)
      throw ExitCode(64)
    } catch let error as RuleFileError {
      writeLine("\(error)", to: 2)
      throw ExitCode(64)
    } catch let error as SupervisorError {
      writeLine("martlet run: \(error)", to: 2)
      throw ExitCode(1)
    }
  }

  /// Before anything is opened or started.
  private func dropRights() throws {
    do throws(ConfinementError) {
      try SupervisorRights.keepWhatIsNeeded()
    } catch {
      throw SupervisorError.system(error.step, error.errno)
    }
  }

  private func makePlan() throws -> RunPlan {
    guard let parsed = StackAddress(address) else {
      throw ValidationError("\(address) is no host address with prefix length, such as 10.0.0.2/24")
    }
    var plan = RunPlan(address: parsed)
    plan.stack = try parseStack()
    plan.device = try parseDevice()
    try checkSharing(plan)
    if let gateway {
      guard StackAddress.parse(gateway) != nil else {
        throw ValidationError("\(gateway) is no IPv4 address")
      }
      plan.gateway = gateway
    }
    guard (1...16).contains(queues) else {
      throw ValidationError("--queues takes 1 to 16, not \(queues)")
    }
    guard (16...32768).contains(ringSize), ringSize & (ringSize - 1) == 0 else {
      throw ValidationError("--ring-size takes a power of two from 16 to 32768, not \(ringSize)")
    }
    if let mtu, !(68...9000).contains(mtu) {
      throw ValidationError("--mtu takes 68 to 9000, not \(mtu)")
    }
    plan.mtu = mtu
    plan.without = try parseWithout()
    guard record == nil || queues == 1 else {
      throw ValidationError("--record takes one queue pair, not \(queues)")
    }
    if record != nil, case .vhostUser = plan.device {
      throw ValidationError(
        "--record takes a device with registers, which a vhost-user back-end has not")
    }
    plan.tracePath = record
    guard (1...1_000_000).contains(failures) else {
      throw ValidationError("--failures takes 1 to 1000000, not \(failures)")
    }
    plan.restartLimit = failures
    plan.keepsStandby = !noStandby
    plan.restartsOnIOMMUFault = restartOnIommuFault
    plan.controlPath = control
    if let host {
      guard access(host, X_OK) == 0 else {
        throw ValidationError("\(host) is no program: build it, or leave --host out")
      }
      plan.hostProgram = host
    }
    guard (16...4096).contains(memory), memory % 2 == 0 else {
      throw ValidationError("--memory takes an even number of MiB from 16 to 4096, not \(memory)")
    }
    guard fetch >= 0, fetch <= 1 << 40 else {
      throw ValidationError("--fetch takes a number of bytes, not \(fetch)")
    }
    guard ["linear", "virtual"].contains(iova) else {
      throw ValidationError("--iova takes linear or virtual, not \(iova)")
    }
    plan.usesVirtualAddresses = iova == "virtual"
    plan.mode = mode
    plan.farEnd = farEnd
    plan.fault = inject
    plan.misbehaviour = misbehave
    if misbehave != nil && plan.emulatedModel == nil {
      throw ValidationError("--misbehave is for an emulated device")
    }
    plan.queues = queues
    plan.cores = try parseCores()
    plan.ringSize = ringSize
    plan.partBytes = memory << 20
    plan.httpPort = Int(http)
    plan.fetchBytes = stack != .sink && http > 0 ? fetch : 0
    plan.isConfined = !unsafeUnconfined
    switch pages {
    case nil: plan.pageSize = nil
    case "2M": plan.pageSize = .huge2M
    case "1G":
      plan.pageSize = .huge1G
      plan.partBytes = max(plan.partBytes, 512 << 20)
    case "4K": plan.pageSize = .ordinary
    case let other?: throw ValidationError("--pages takes 2M, 1G or 4K, not \(other)")
    }
    return plan
  }

  /// Which names there are, only the program knows that has the stacks.
  private func parseStack() throws -> RunPlan.Stack {
    let stack = stack ?? (share == nil ? .lwip : .none)
    if stack.rawValue.contains("/") && access(stack.rawValue, X_OK) != 0 {
      throw ValidationError("\(stack.rawValue) is no program: build it, or name a stack")
    }
    return stack
  }

  private func checkSharing(_ plan: RunPlan) throws {
    guard share != nil else {
      if plan.stack == .none { throw ValidationError("--stack none takes --share SOCKET") }
      if policy != nil { throw ValidationError("--policy takes --share SOCKET") }
      if rules != nil { throw ValidationError("--rules takes --share SOCKET") }
      return
    }
    if control != nil {
      throw ValidationError("--share has a socket that can be asked: leave --control out")
    }
    if record != nil {
      throw ValidationError("--share leaves no --record: a trace is of one instance")
    }
    if iova == "virtual" {
      throw ValidationError("--share takes --iova linear: each instance sees its memory elsewhere")
    }
    if pages == "1G" { throw ValidationError("--share takes --pages 2M or 4K") }
    if case .vhostUser = plan.device {
      throw ValidationError(
        "a vhost-user back-end is told of all memory before it starts, so that nobody can attach later: leave --share out, or use vfio-user"
      )
    }
  }

  /// A program of the user's own has drivers that this one does not know: it checks the names itself.
  private func parseWithout() throws -> [String] {
    let names = (without ?? "").split(separator: ",").map(String.init)
    let known = KnownDriver.all.flatMap(\.optionalFeatures)
    if host == nil, let unknown = names.first(where: { !known.contains($0) }) {
      throw ValidationError(
        "--without takes \(known.joined(separator: ", ")), not \(unknown)")
    }
    return names
  }

  private func parseCores() throws -> [Int] {
    guard let cores else {
      // A device process is as busy as the threads that drive it.
      return Cores().free(for: queues, leaving: device.hasPrefix("emulated") ? 2 : 1)
    }
    if cores == "any" { return [] }
    let allowed = Cores().allowed
    let numbers = cores.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
    let wanted = numbers.compactMap { $0 }
    guard numbers.count == queues, wanted.count == queues, wanted.allSatisfy(allowed.contains)
    else {
      let names = allowed.map(String.init).joined(separator: ",")
      throw ValidationError(
        "--cores takes a core for each of \(queues) queue pairs, out of \(names), or any; not \(cores)"
      )
    }
    return wanted
  }

  private func parseDevice() throws -> RunPlan.Device {
    if device == "emulated" { return .emulated(.virtioNet) }
    if device.hasPrefix("emulated:") {
      guard let model = RunPlan.EmulatedModel(rawValue: String(device.dropFirst(9))) else {
        throw ValidationError("\(device): there is emulated:virtio-net and emulated:e1000e")
      }
      return .emulated(model)
    }
    for way in ["vfio-user", "vhost-user"] where device.hasPrefix("\(way):") {
      let path = String(device.dropFirst(way.count + 1))
      guard (1...107).contains(path.utf8.count) else {
        throw ValidationError(
          "\(device) names no socket; write \(way):PATH, with 107 bytes at most")
      }
      return way == "vfio-user" ? .vfioUser(path) : .vhostUser(path)
    }
    do {
      return .function("\(try PCIBus().function(named: device).address)")
    } catch {
      writeLine("martlet run: \(error)", to: 2)
      throw ExitCode(2)
    }
  }
}

extension RunPlan.EmulatedModel: ExpressibleByArgument {}
extension PollMode: ExpressibleByArgument {}
extension RunPlan.Stack: ExpressibleByArgument {}
extension RunPlan.FarEnd: ExpressibleByArgument {}
extension RunPlan.Fault: ExpressibleByArgument {}
