import Channel
import Glibc
import Handles
import Memory
import Stacks
import Steering
import Supervisor

/// An instance that registers memory of its own and of another process, and sends from it:
/// `martlet bench-end registered-sender`. Says what came of each step in a line.
public enum RegisteredSender {
  /// - Parameters:
  ///   - socket: of `martlet run --share`.
  ///   - far: the IPv4 address at the other end of the wire; its port 9 gets the memory, port 10 the rest.
  ///   - reader: the user that may read the memory meanwhile.
  public static func run(socket: String, far: String, megabytes: Int, reader: UInt32) throws {
    let environment = try InstanceEnvironment.attach(
      path: socket,
      request: AttachRequest(name: "sender", claims: [Claim("ipv4:10.0.0.3")].compactMap(\.self)))
    environment.connection.send("ready")
    guard var commands = try environment.makeCommandClient() else {
      throw SupervisorError.input("the supervisor has no command channel")
    }
    var broker = try HandleClient(path: socket + ".handles")
    var sender = try PieceSender(environment, from: [10, 0, 0, 3], to: far)
    let memory = try Arena(byteCount: megabytes << 20, pageSize: .ordinary, name: "application")
    PatternContent.fill(
      UnsafeMutableRawBufferPointer(start: memory.address, count: memory.byteCount), offset: 0)

    // All of it, once.
    let range = try environment.register(memory, through: &broker, &commands)
    for offset in stride(from: 0, to: range.byteCount, by: PieceSender.payload) {
      let length = min(PieceSender.payload, range.byteCount - offset)
      try sender.send(range, offset, length, port: 9)
    }
    try sender.drain()
    say("sent \(sender.packets) packets of \(range.byteCount) bytes")

    // What is being sent can be read by another user, whom the broker knows.
    let capture = try broker.create(over: memory, rights: .read, receiver: .user(reader))
    say("capture \(capture.id.text)")
    _ = readLine()

    // Given back with packets on their way: the memory is free when the call returns.
    for index in 0..<60 { try sender.send(range, index * 2048, 1024, port: 10) }
    try environment.unregister(range, &commands)
    try sender.drain()
    say("unregistered \(!environment.isRegistered(range))")
    refusal("unregister twice") { try environment.unregister(range, &commands) }
    refusal("a guessed handle") { _ = try environment.register(HandleID(), &commands) }

    // Its handle is revoked while packets from it are on their way.
    let again = try environment.register(memory, through: &broker, &commands)
    for index in 0..<200 { try sender.send(again, index * 4096, 1024, port: 10) }
    try broker.revoke(again.handle)
    for index in 0..<2000 { try sender.send(again, index * 4096, 1024, port: 10) }
    try sender.drain()
    say("revoked \(try hears("revoked", environment))")

    // Another process's, which is killed meanwhile.
    say("process \(getpid())")
    guard let line = readLine(), let handle = HandleID(line) else {
      throw SupervisorError.input("no handle of another process")
    }
    let others = try environment.register(handle, &commands)
    say("registered \(others.byteCount)")
    var isOver = false
    for round in 0..<100_000 where !isOver {
      for index in 0..<50 { try sender.send(others, index * 8192, 1400, port: 10) }
      if round % 20 == 0 { isOver = try hears("revoked", environment, milliseconds: 0) }
    }
    try sender.drain()
    say("owner's end heard \(isOver)")
    say("still there \(try commands.linkState().isUp), \(sender.inFlight) tags missing")
    environment.connection.send("bye")
  }

  private static func say(_ text: String) {
    print(text)
    fflush(nil)
  }

  private static func refusal(_ what: String, _ body: () throws -> Void) {
    do {
      try body()
      say("\(what): done")
    } catch {
      say("\(what): \(error)")
    }
  }

  /// Whether the supervisor says something.
  private static func hears(
    _ word: String, _ environment: InstanceEnvironment, milliseconds: Int32 = 2000
  ) throws -> Bool {
    do throws(AttachError) {
      return try environment.connection.receive(withinMilliseconds: milliseconds).0.word == word
    } catch {
      if case .noAnswer = error { return false }
      throw error
    }
  }
}

/// Sends UDP packets of two pieces: headers of its own, then bytes of registered memory.
struct PieceSender: ~Copyable {
  static let payload = 1400
  private static let headerBytes = 42
  private static let tags = 64

  private let environment: InstanceEnvironment
  private let channel: InstanceChannel
  private let template: [UInt8]
  private var burst = Burst(capacity: 64)
  private var completed = Burst(capacity: 64)
  private var free = Array(0..<UInt16(tags))
  private(set) var packets = 0

  var inFlight: Int { Self.tags - free.count }

  init(_ environment: InstanceEnvironment, from own: [UInt8], to far: String) throws {
    let target = far.split(separator: ".").compactMap { UInt8($0) }
    guard target.count == 4 else { throw SupervisorError.input("\(far) is no IPv4 address") }
    self.environment = environment
    channel = InstanceChannel(environment)
    // To all on the wire: nobody has to be asked for an address.
    template =
      [UInt8](repeating: 0xff, count: 6) + environment.macAddress + [8, 0]
      + [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0] + own + target
      + [0, 7, 0, 0, 0, 0, 0, 0]
  }

  /// Waits for a free tag, then sends.
  mutating func send(
    _ range: RegisteredRange, _ offset: Int, _ length: Int, port: UInt8
  ) throws {
    while free.isEmpty { try takeBack() }
    let tag = free.removeLast()
    let place = environment.receiveBytes + Int(tag) * 64
    write(length, port, at: environment.arena.address + place)
    burst.append(
      Descriptor(
        segment: UInt32(place / Descriptor.unit), offset: UInt32(place % Descriptor.unit),
        length: UInt32(Self.headerBytes), flags: .more, tag: tag))
    burst.append(range.piece(at: offset, length: length))
    packets += 1
    channel.ends[0].transmit.push(&burst)
    channel.ends[0].ring()
  }

  private func write(_ length: Int, _ port: UInt8, at header: UnsafeMutableRawPointer) {
    var bytes = template
    let (ip, udp) = (length + 28, length + 8)
    (bytes[16], bytes[17]) = (UInt8(ip >> 8), UInt8(ip & 255))
    bytes[37] = port
    (bytes[38], bytes[39]) = (UInt8(udp >> 8), UInt8(udp & 255))
    var sum = stride(from: 14, to: 34, by: 2).reduce(0) {
      $0 + (Int(bytes[$1]) << 8 | Int(bytes[$1 + 1]))
    }
    while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16) }
    (bytes[24], bytes[25]) = (UInt8((~sum >> 8) & 255), UInt8(~sum & 255))
    header.copyMemory(from: bytes, byteCount: bytes.count)
  }

  private mutating func takeBack() throws {
    if environment.channel.end.reason != .none {
      throw SupervisorError.input("closed: \(environment.channel.end.reason.name)")
    }
    try channel.ends[0].completion.pop(into: &completed)
    for index in 0..<completed.count { free.append(completed[index].tag) }
    if completed.isEmpty { usleep(50) }
    completed.removeAll()
  }

  /// Waits until all have come back, 5 seconds at most.
  mutating func drain() throws {
    for _ in 0..<50_000 where inFlight > 0 { try takeBack() }
    if inFlight > 0 { throw SupervisorError.input("\(inFlight) tags have not come back") }
  }
}
