import CLinux
import Channel
import Commands
import FuzzHarness
import Glibc
import Memory

/// The server of commands, with a client that writes what it likes into their memory.
let commandServer = FuzzTarget("command-server") { input in
  var input = input
  let options = input.number(UInt8.self)
  do throws(MemoryError) {
    var server = try CommandServer(credentials: 4)
    var client = try HostileClient(&server)
    var service = OneCaller()
    let seed = options & 0xe0 == 0xe0 ? UInt64(input.number(UInt32.self)) : 0
    Meddler.shared.change(client.bytes, seed: seed) {
      while !input.isEmpty {
        let verb = input.number(UInt8.self)
        if verb & 3 == 0 {
          _ = server.turn(&service)
        } else if verb & 31 == 1, let token = service.waiting.popLast() {
          _ = server.complete(
            token, verb & 32 == 0 ? .done([1, 2, 3, 4, 5, 6]) : .refused(.denied))
        } else if verb & 31 == 2 {
          if server.prepareToSleep() { _ = server.turn(&service) }
        } else {
          client.act(verb, &input)
        }
      }
    }
    while let (instance, reason) = server.nextClosed() {
      require(instance == HostileClient.instance, "another client is closed: \(reason.name)")
    }
  } catch {
    fatalError("\(error)")
  }
}

/// A client of commands, whose server writes what it likes into their memory.
let commandClient = FuzzTarget("command-client") { input in
  var input = input
  let options = input.number(UInt8.self)
  do throws(MemoryError) {
    let memory = try CommandMemory(layout: .standard)
    let view = try Arena(adopting: dup(memory.descriptor), byteCount: memory.layout.byteCount)
    let bytes = UnsafeMutableRawBufferPointer(start: view.address, count: view.byteCount)
    let ends = try CommandDoorbell.pair()
    defer { close(ends.server) }
    var client = CommandClient(
      memory, doorbell: CommandDoorbell(adopting: ends.client),
      credential: CredentialID(high: 1, low: 2))
    let seed = options & 0xe0 == 0xe0 ? UInt64(input.number(UInt32.self)) : 0
    Meddler.shared.change(bytes, seed: seed) {
      while !input.isEmpty {
        let verb = input.number(UInt8.self)
        switch verb & 7 {
        case 0, 1: _ = try? client.submit(CommandSubmission(.time))
        case 2: _ = try? client.submit(.join, text: String(repeating: "x", count: Int(verb)))
        case 3, 4:
          let before = client.onTheWay
          if let completion = try? client.poll() {
            _ = completion.status
            require(client.onTheWay < before, "more completions than commands")
          }
        case 5: storeWord(&input, bytes, at: 384)
        case 6: storeWord(&input, bytes, at: Int(input.number(UInt16.self)))
        default:
          _ = client.closure
          _ = client.prepareToSleep()
        }
      }
    }
  } catch {
    fatalError("\(error)")
  }
}

private func storeWord(
  _ input: inout FuzzInput, _ bytes: UnsafeMutableRawBufferPointer, at offset: Int
) {
  let place = bytes.baseAddress! + (offset % (bytes.count - 3) & ~3)
  volatile_store32(place, input.number())
}

/// The one client that submits anything, with a credential of its own, and another's of which it knows nothing.
private struct HostileClient: ~Copyable {
  static let instance: UInt32 = 257

  private let view: Arena
  private var client: CommandClient
  private let own: CredentialID

  init(_ server: inout CommandServer) throws(MemoryError) {
    _ = server.credentials.issue(instance: 513, uid: 7, expiry: .max, now: 0)
    guard
      let own = server.credentials.issue(instance: Self.instance, uid: 8, expiry: .max, now: 0)
    else { fatalError("no credential") }
    let memory = try CommandMemory(layout: .standard)
    let view = try Arena(adopting: dup(memory.descriptor), byteCount: memory.layout.byteCount)
    let ends = try CommandDoorbell.pair()
    guard let mine = try? CommandMemory(adopting: dup(memory.descriptor)) else {
      fatalError("no memory")
    }
    let isAdded = server.add(
      instance: Self.instance, memory, doorbell: CommandDoorbell(adopting: ends.server))
    require(isAdded, "no room for a client")
    self.own = own
    self.view = view
    client = CommandClient(
      mine, doorbell: CommandDoorbell(adopting: ends.client), credential: own)
  }

  var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: view.address, count: view.byteCount)
  }

  mutating func act(_ verb: UInt8, _ input: inout FuzzInput) {
    switch verb >> 2 & 7 {
    case 0, 1:
      var command = CommandSubmission(.time, input.number(), input.number())
      command.number = UInt32(verb >> 5) + UInt32(verb & 2)
      command.form = UInt16(input.number(UInt8.self) & 3)
      command.length = UInt16(input.number(UInt8.self))
      _ = try? client.submit(command)
    case 2: _ = try? client.submit(.join, text: "ipv4:10.0.0.\(verb >> 5)")
    case 3: while let completion = try? client.poll() { _ = completion.status }
    // Indices, then any word.
    case 4, 5: storeWord(&input, bytes, at: 128 * (1 + Int(verb >> 5) % 7))
    case 6: client.credential = CredentialID(high: input.number(), low: own.low)
    default: storeWord(&input, bytes, at: Int(input.number(UInt16.self)))
    }
  }
}

/// A service that nobody but the one client may reach.
private struct OneCaller: CommandService {
  var waiting: [CommandToken] = []

  private func check(_ caller: CommandCaller) {
    require(caller == CommandCaller(instance: HostileClient.instance, uid: 8), "a foreign caller")
  }

  mutating func statistics(of caller: CommandCaller, queue: UInt64?) -> InstanceStatistics? {
    check(caller)
    return queue == nil ? InstanceStatistics([0, 0, 0, 0, 0, 0]) : nil
  }
  mutating func linkState(for caller: CommandCaller) -> LinkState {
    check(caller)
    return LinkState(isUp: true, mtu: 1500)
  }
  mutating func time(for caller: CommandCaller, monotonic: UInt64) -> CommandTime {
    check(caller)
    return CommandTime(monotonic: monotonic, realtime: 0)
  }
  mutating func join(
    _ claim: String, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    check(caller)
    require(claim.utf8.count <= CommandLayout.textBytes, "a text that is too long")
    require(claim.utf8.allSatisfy { (33...126).contains($0) }, "a text of other characters")
    waiting.append(token)
    return .pending
  }
  mutating func grow(
    by byteCount: UInt64, for caller: CommandCaller, _ token: CommandToken
  ) -> CommandOutcome {
    check(caller)
    return .refused(.exhausted)
  }
}
