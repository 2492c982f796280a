import ArgumentParser
import CLinux
import Glibc
import Handles

/// `martlet handles`: memory that processes share by handles.
struct HandlesCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "handles",
    abstract: "Share memory between processes by handles: a broker, and who holds what.",
    subcommands: [HandlesServe.self, HandlesList.self, HandlesRevoke.self])
}

struct HandlesServe: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve", abstract: "Be the broker of memory handles.",
    discussion: """
      Prints "ready" once clients can connect. SIGINT or SIGTERM ends it and all handles; it then prints what it has \
      counted. Whoever may connect may make handles; each is of use to the receiver that its owner named, nobody else.
      """)

  @Option(help: "Path of the UNIX socket to listen on, at most 107 bytes.") var socket: String
  @Option(help: "Permission bits of the socket, octal: 666 lets every user connect.")
  var mode = "666"
  @Option(help: "Handles that one user may have at once.") var handlesPerUser = 4096

  func run() throws {
    do {
      try serve()
    } catch let failure as ServeFailure {
      writeLine("martlet handles serve: \(failure.text)", to: 2)
      throw ExitCode(failure.code)
    }
  }

  private func serve() throws {
    guard let mode = mode_t(mode, radix: 8), mode <= 0o777 else {
      throw ServeFailure.usage("--mode takes permission bits such as 660, not \(mode)")
    }
    guard (1...1_000_000).contains(handlesPerUser) else {
      throw ServeFailure.usage("--handles-per-user takes 1 to 1000000, not \(handlesPerUser)")
    }
    let stop = linux_termination_descriptor()
    guard stop >= 0 else { throw ServeFailure.system("signalfd", -stop) }
    defer { close(stop) }
    let listening = try ListeningSocket(
      path: socket, inherited: nil, kind: SOCK_SEQPACKET, mode: mode)
    allowManyDescriptors()
    var limits = HandleBroker.Limits()
    limits.handlesPerUser = handlesPerUser
    let service: HandleService
    do {
      service = try HandleService(limits: limits)
    } catch {
      throw ServeFailure(text: "\(error)", code: 1)
    }
    service.listen(on: listening.descriptor)
    writeLine("ready \(socket)", to: 1)
    var entries = [
      pollfd(fd: service.descriptor, events: Int16(POLLIN), revents: 0),
      pollfd(fd: stop, events: Int16(POLLIN), revents: 0),
    ]
    while entries[1].revents == 0 {
      poll(&entries, 2, service.timeout(now: monotonic_nanoseconds()))
      service.serve(now: monotonic_nanoseconds())
    }
    writeLine(service.counters.map { "\($0.name) \($0.value)" }.joined(separator: "\n"), to: 1)
  }

  /// Each connection takes two descriptors, each memory up to two.
  private func allowManyDescriptors() {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }
}

struct HandlesList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "List your handles; those of all users if you are root or the broker's user.")

  @Option(help: "Path of the broker's socket.") var socket: String
  @Flag(help: "Print what the broker has counted instead; for root and the broker's user.")
  var counters = false

  func run() throws {
    try reporting {
      do {
        var client = try HandleClient(path: socket)
        let lines =
          counters
          ? try client.counters().sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }
          : try client.list()
        for line in lines { writeLine(line, to: 1) }
      } catch {
        throw CommandFailure.failed(error)
      }
    }
  }
}

struct HandlesRevoke: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "revoke", abstract: "End handles, by the numbers that `list` shows.")

  @Option(help: "Path of the broker's socket.") var socket: String
  @Argument(help: "Numbers of handles.") var numbers: [UInt64]

  func run() throws {
    try reporting {
      do {
        var client = try HandleClient(path: socket)
        for number in numbers { try client.revoke(number: number) }
      } catch HandleError.refused(.unknownHandle) {
        throw CommandFailure(
          code: 2, text: "no handle of yours has that number; `martlet handles list` shows them")
      } catch {
        throw CommandFailure.failed(error)
      }
    }
  }
}
