import ArgumentParser
import CLinux
import Channel
import Driver
import Glibc
import Stacks
import Steering
import Supervisor

/// `martlet attach`: a stack, or a program of the user's own, on a NIC that others use too.
struct Attach: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a protocol stack or a program on a NIC that is shared.",
    discussion: """
      Needs a supervisor that has been started with `martlet run --share SOCKET`, and no rights but those to its socket. \
      The stack runs in this very process, until Ctrl-C or until the supervisor ends; its exit code is the command's.

      A program of your own gets the connected socket as descriptor 3, which MARTLET_SOCKET names too, with the \
      supervisor's welcome waiting on it: InstanceEnvironment.inherited() in Swift and martlet_adopt() in C take it from \
      there. What follows -- are its arguments.

      The kernel's stack gets an interface in this network namespace, for which root is needed. It answers what comes to \
      its addresses there as any interface does.

      Exit codes: that of the stack; 1 the supervisor refuses or cannot be reached, 64 the command line makes no sense.
      """)

  @Option(help: "The supervisor's socket.")
  var socket: String

  @Option(
    help: "The stack: lwip, kernel, gvisor, sink, or the path of a program, with a slash in it.")
  var stack: String

  @Option(
    help: "The stack's IPv4 address with prefix length. Without --claim it is what is claimed.")
  var address: String?

  @Option(help: "The stack's gateway.")
  var gateway: String?

  @Option(
    name: .customLong("claim"),
    help: ArgumentHelp(
      "What to receive and from where to send, in place of all of --address; as often as needed: ipv4:10.0.0.3, ipv4:10.0.0.3/tcp/80, ipv6:2001:db8::5/udp/5000-5999, group:224.0.0.251, rest.",
      valueName: "claim"))
  var claims: [String] = []

  @Option(
    help: ArgumentHelp(
      "A file with the token that the supervisor's policy asks for: all of its bytes, 64 at most.",
      valueName: "file"))
  var tokenFile: String?

  @Option(help: "The instance's name. Without this, that of the stack.")
  var name: String?

  @Option(
    help: "The most memory that the instance wants, in MiB. Without this, what the policy says.")
  var memory: Int?

  @Option(help: "TCP port of lwIP's HTTP server; 0 for none.")
  var http: UInt16 = 80

  @Option(
    help: ArgumentHelp(
      "Fetch so many bytes, check them and end, on lwIP.", valueName: "address:port:bytes"))
  var fetch: String?

  @Option(help: "The kernel stack's interface.")
  var interface = "martlet0"

  @Option(help: "poll, yield, adaptive or interrupt, as for `martlet run`.")
  var mode = PollMode.adaptive

  @Argument(parsing: .postTerminator, help: "A program's arguments.")
  var arguments: [String] = []

  func run() throws {
    try reporting {
      let request = try request()
      let program = try program()
      do {
        let connection = try SupervisorConnection.attach(path: socket, request: request)
        let welcome = try connection.peekWelcome()
        try start(program, connection, welcome)
      } catch let error as AttachError {
        throw CommandFailure.failed(error)
      }
    }
  }

  private var isOwnProgram: Bool { RunPlan.Stack(rawValue: stack).isOwnProgram }

  private func request() throws -> AttachRequest {
    if let address, StackAddress(address) == nil {
      throw ValidationError("\(address) is no host address with prefix length, such as 10.0.0.3/24")
    }
    guard address != nil || isOwnProgram || stack == "sink" else {
      throw ValidationError("--stack \(stack) needs an --address, such as 10.0.0.3/24")
    }
    if let gateway, StackAddress.parse(gateway) == nil {
      throw ValidationError("\(gateway) is no IPv4 address")
    }
    var wanted: [Claim] = []
    for text in claims {
      guard let claim = Claim(text) else {
        throw ValidationError(
          "\(text) is no claim; there are ipv4:ADDRESS, ipv6:ADDRESS, the same with /tcp/PORTS or /udp/PORTS, group:ADDRESS and rest"
        )
      }
      wanted.append(claim)
    }
    if wanted.isEmpty, let own = address.flatMap(StackAddress.init) {
      wanted = [.address(NetworkAddress(ipv4: own.address))]
    }
    guard !wanted.isEmpty else {
      throw ValidationError("nothing is claimed: give an --address or a --claim")
    }
    guard wanted.count <= AttachRequest.maximumClaims else {
      throw ValidationError(
        "\(wanted.count) claims are too many: at most \(AttachRequest.maximumClaims)")
    }
    let name = name ?? RunPlan.Stack(rawValue: stack).name
    guard AttachRequest.isName(name) else {
      throw ValidationError(
        "--name takes 1 to \(AttachRequest.maximumNameBytes) letters, digits, -, _ and ., not \(name)"
      )
    }
    if let memory, !(1...(1 << 20)).contains(memory) {
      throw ValidationError("--memory takes 1 to 1048576 MiB, not \(memory)")
    }
    return AttachRequest(name: name, token: try token(), claims: wanted, memory: memory)
  }

  private func token() throws -> [UInt8] {
    guard let tokenFile else { return [] }
    let file = open(tokenFile, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else {
      throw CommandFailure(code: 1, text: "\(tokenFile): \(String(cString: strerror(errno)))")
    }
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: AttachRequest.maximumTokenBytes + 1)
    let count = read(file, &bytes, bytes.count)
    guard (1...AttachRequest.maximumTokenBytes).contains(count) else {
      throw CommandFailure(
        code: 1,
        text: "\(tokenFile): a token has 1 to \(AttachRequest.maximumTokenBytes) bytes")
    }
    return Array(bytes[..<count])
  }

  /// The program with its arguments.
  private func program() throws -> [String] {
    if isOwnProgram {
      guard access(stack, X_OK) == 0 else {
        throw ValidationError("\(stack) is no program: build it, or name a stack")
      }
      return [stack] + arguments
    }
    guard arguments.isEmpty else {
      throw ValidationError("what follows -- is for programs of your own, not for --stack \(stack)")
    }
    var words = [Programs.stack, "--stack", stack, "--mode", mode.rawValue, "--http", "\(http)"]
    if let address { words += ["--address", address] }
    if let gateway { words += ["--gateway", gateway] }
    if let fetch { words += ["--fetch", fetch] }
    if stack == "kernel" { words += ["--tap", "4"] }
    return words
  }

  /// Becomes the program.
  private func start(
    _ program: [String], _ connection: borrowing SupervisorConnection, _ welcome: Welcome
  ) throws {
    var tap: Int32 = -1
    if stack == "kernel" {
      do throws(SupervisorError) {
        tap = try KernelInterface.open(name: interface)
        let mac = welcome.macAddress
        try KernelInterface.configure(
          name: interface,
          macAddress: MACAddress((mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])),
          mtu: welcome.mtu, address: address.flatMap(StackAddress.init), gateway: gateway,
          ipv6: ipv6Addresses(welcome.claims))
      } catch {
        throw CommandFailure.failed(error)
      }
    }
    let number = SupervisorConnection.inheritedDescriptor
    setenv("MARTLET_SOCKET", "\(number)", 1)
    // Out of the way first: either may have the other's number.
    let moved = [connection.descriptor, tap].map {
      $0 < 0 ? -1 : linux_fcntl($0, F_DUPFD_CLOEXEC, 16)
    }
    for (index, descriptor) in moved.enumerated() {
      if descriptor < 0 {
        close(number + Int32(index))
      } else {
        dup2(descriptor, number + Int32(index))
      }
    }
    _ = linux_close_range(UInt32(number) + 2, .max)
    let words = program.map { strdup($0) } + [nil]
    execv(program[0], words)
    throw CommandFailure(code: 1, text: "\(program[0]): \(String(cString: strerror(errno)))")
  }

  private func ipv6Addresses(_ claims: [Claim]) -> [NetworkAddress] {
    claims.compactMap {
      switch $0 {
      case .address(let address) where address.isIPv6: address
      case .ports(let address, _, _) where address.isIPv6: address
      default: nil
      }
    }
  }
}
