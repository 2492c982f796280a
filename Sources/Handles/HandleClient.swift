import CLinux
import Channel
import Glibc
import Memory

/// A connection to the broker. Handles that are made over it end with it. Calls wait for the answer, 5 seconds at most;
/// one thread at a time.
public struct HandleClient: ~Copyable {
  /// Who may use a handle.
  public enum Receiver: Sendable {
    /// Any process of a user.
    case user(uid_t)
    /// The process that has this number now.
    case process(pid_t, user: uid_t)
    /// The process behind a pidfd, which stays the caller's: no other is meant, also if this one has ended.
    case identified(pidfd: Int32, user: uid_t)
  }

  /// How long and how often a handle may be used.
  public struct Limits: Sendable {
    /// Nil: until it is revoked or its owner goes.
    public var milliseconds: UInt64?
    /// Nil: any number of times.
    public var uses: UInt64?

    /// Without values: as long as its owner is there, any number of times.
    public init(milliseconds: UInt64? = nil, uses: UInt64? = nil) {
      self.milliseconds = milliseconds
      self.uses = uses
    }
  }

  /// A handle that was made: what is given away, and what its owner calls it by.
  public struct Created: Sendable {
    /// For the receiver.
    public let id: HandleID
    /// For ``HandleClient/revoke(number:)`` and lists.
    public let number: UInt64
  }

  private let socket: Int32
  private var buffer = [UInt8](repeating: 0, count: ControlMessage.maximumBytes)

  /// - Parameter path: of the broker's socket.
  /// - Throws: ``HandleError``.
  public init(path: String) throws(HandleError) {
    let type = Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue)
    let descriptor = Glibc.socket(AF_UNIX, type, 0)
    guard descriptor >= 0 else { throw .system(call: "socket", errno: errno) }
    let result = linux_connect_unix(descriptor, path)
    guard result == 0 else {
      close(descriptor)
      throw .system(call: "connecting to \(path)", errno: -result)
    }
    try self.init(adopting: descriptor)
  }

  /// - Parameter socket: connected to the broker; the client's from now on.
  /// - Throws: ``HandleError``: the broker refuses the connection, or is none.
  public init(adopting socket: Int32) throws(HandleError) {
    self.socket = socket
    var limit = timeval(tv_sec: 5, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    let greeting = try receive().message
    guard greeting.word == "hello", greeting["version"] == "1" else {
      throw .badAnswer("\(greeting.word) \(greeting.rest)")
    }
  }

  deinit { close(socket) }

  // MARK: Owners

  /// Shares memory that only its maker writes, all of it, for reading.
  /// - Throws: ``HandleError``.
  public mutating func create(
    over memory: borrowing PublishedMemory, receiver: Receiver, limits: Limits = Limits()
  ) throws(HandleError) -> Created {
    try create(
      memory.isRevocable ? .revocable : .mapped, .read, 0, memory.byteCount, receiver, limits,
      [memory.readerDescriptor] + (memory.isRevocable ? [memory.descriptor] : []))
  }

  /// Shares an arena: all of it to be mapped for reading and writing, or a range that the broker serves.
  /// - Parameters:
  ///   - arena: stays the caller's, and has to stay no longer than the handle's making.
  ///   - range: bytes of the arena; nil for all.
  ///   - rights: what the receiver may do.
  ///   - isServed: nil lets the broker serve whatever is not the whole arena for reading and writing.
  ///   - receiver: who may use it.
  ///   - limits: how long and how often.
  /// - Throws: ``HandleError``.
  public mutating func create(
    over arena: borrowing Arena, range: Range<Int>? = nil, rights: MemoryHandle.Rights,
    isServed: Bool? = nil, receiver: Receiver, limits: Limits = Limits()
  ) throws(HandleError) -> Created {
    let range = range ?? 0..<arena.byteCount
    let isWhole = range == 0..<arena.byteCount && rights == .readWrite
    return try create(
      isServed ?? !isWhole ? .served : .mapped, rights, range.lowerBound, range.count, receiver,
      limits, [arena.descriptor])
  }

  /// Shares memory by its descriptors, which stay the caller's: for memory of another make.
  /// - Parameters:
  ///   - kind: who enforces the handle.
  ///   - rights: what the receiver may do.
  ///   - offset: the first byte.
  ///   - byteCount: how many.
  ///   - receiver: who may use it.
  ///   - limits: how long and how often.
  ///   - descriptors: the memory; for a revocable one, open for reading, then open for writing.
  /// - Throws: ``HandleError``.
  public mutating func create(
    _ kind: MemoryHandle.Kind, _ rights: MemoryHandle.Rights, _ offset: Int, _ byteCount: Int,
    _ receiver: Receiver, _ limits: Limits, _ descriptors: [Int32]
  ) throws(HandleError) -> Created {
    var descriptors = descriptors
    var opened: Int32 = -1
    defer { if opened >= 0 { close(opened) } }
    let uid: uid_t
    switch receiver {
    case .user(let user): uid = user
    case .process(let pid, let user):
      opened = linux_pidfd_open(pid)
      guard opened >= 0 else { throw .system(call: "pidfd_open", errno: -opened) }
      descriptors.append(opened)
      uid = user
    case .identified(let pidfd, let user):
      descriptors.append(pidfd)
      uid = user
    }
    var text =
      "create kind=\(kind.rawValue) rights=\(rights.rawValue) offset=\(offset) bytes=\(byteCount) uid=\(uid)"
    if case .user = receiver {} else { text += " process=1" }
    if let uses = limits.uses { text += " uses=\(uses)" }
    if let milliseconds = limits.milliseconds { text += " milliseconds=\(milliseconds)" }
    let answer = try ask(text, descriptors, "created").message
    guard let id = answer["id"].flatMap({ HandleID($0) }),
      let number: UInt64 = answer.number("number")
    else { throw .badAnswer(answer.rest) }
    return Created(id: id, number: number)
  }

  /// Ends a handle of this user's by its number; an administrator ends any.
  /// - Throws: ``HandleError``.
  public mutating func revoke(number: UInt64) throws(HandleError) {
    _ = try ask("revoke number=\(number)", [], "revoked")
  }

  /// Ends a handle of this user's by its id.
  /// - Throws: ``HandleError``.
  public mutating func revoke(_ id: HandleID) throws(HandleError) {
    _ = try ask("revoke id=\(id.text)", [], "revoked")
  }

  /// A line of `name=value` for each handle that this user may see, in the order in which they were made.
  /// - Throws: ``HandleError``.
  public mutating func list() throws(HandleError) -> [String] {
    var lines: [String] = []
    var last: UInt64 = 0
    while true {
      let answer = try ask("list after=\(last)", [], "handle", "end").message
      guard answer.word == "handle" else { return lines }
      guard let number: UInt64 = answer.number("number"), number > last else {
        throw .badAnswer(answer.rest)
      }
      last = number
      lines.append(answer.rest)
    }
  }

  /// What the broker has counted, for administrators.
  /// - Throws: ``HandleError``.
  public mutating func counters() throws(HandleError) -> [String: UInt64] {
    let answer = try ask("counters", [], "counters").message
    return answer.rest.split(separator: " ").reduce(into: [:]) { counters, pair in
      let parts = pair.split(separator: "=")
      if parts.count == 2 { counters[String(parts[0])] = UInt64(parts[1]) }
    }
  }

  // MARK: Receivers

  /// Maps a handle's memory.
  /// - Throws: ``HandleError``.
  public mutating func open(_ id: HandleID) throws(HandleError) -> SharedRange {
    let (answer, descriptor) = try ask("open id=\(id.text)", [], "opened")
    guard descriptor >= 0 else { throw .badAnswer("no descriptor") }
    defer { close(descriptor) }
    guard let byteCount: Int = answer.number("bytes"),
      let rights = answer["rights"].flatMap({ MemoryHandle.Rights(rawValue: $0) }),
      let kind = answer["kind"].flatMap({ MemoryHandle.Kind(rawValue: $0) })
    else { throw .badAnswer(answer.rest) }
    return try SharedRange(
      descriptor, byteCount: byteCount, rights: rights, isRevocable: kind == .revocable)
  }

  /// Has the broker read.
  /// - Parameters:
  ///   - id: the handle's.
  ///   - offset: in bytes from the handle's first.
  ///   - byteCount: 1 to 4096.
  /// - Throws: ``HandleError``.
  public mutating func read(
    _ id: HandleID, offset: Int, byteCount: Int
  ) throws(HandleError) -> [UInt8] {
    let answer = try ask("read id=\(id.text) offset=\(offset) bytes=\(byteCount)", [], "data")
    guard let bytes = Hexadecimal.bytes(answer.message["hex"] ?? ""), bytes.count == byteCount
    else { throw .badAnswer("not \(byteCount) bytes") }
    return bytes
  }

  /// Has the broker write.
  /// - Parameters:
  ///   - id: the handle's.
  ///   - bytes: 1 to 4096.
  ///   - offset: in bytes from the handle's first.
  /// - Throws: ``HandleError``.
  public mutating func write(
    _ id: HandleID, offset: Int, _ bytes: some Collection<UInt8>
  ) throws(HandleError) {
    guard bytes.count <= HandleBroker.maximumAccess else { throw .refused(.tooLong) }
    _ = try ask(
      "write id=\(id.text) offset=\(offset) hex=\(Hexadecimal.text(bytes))", [], "written")
  }

  // MARK: Messages

  /// One request and its answer, whose descriptor (-1 for none) is the caller's.
  private mutating func ask(
    _ text: String, _ descriptors: [Int32], _ words: String...
  ) throws(HandleError) -> (message: ControlMessage, descriptor: Int32) {
    guard ControlMessage.send(text, descriptors: descriptors, to: socket) else { throw .noAnswer }
    let (answer, descriptor) = try receive()
    guard words.contains(answer.word) else {
      if descriptor >= 0 { close(descriptor) }
      throw .badAnswer("\(answer.word) \(answer.rest)")
    }
    return (answer, descriptor)
  }

  private mutating func receive() throws(HandleError) -> (
    message: ControlMessage, descriptor: Int32
  ) {
    var (descriptor, count): (Int32, Int32) = (-1, 0)
    var length = 0
    repeat {
      length = linux_receive_descriptors(
        socket, &buffer, buffer.count, &descriptor, 1, &count, 0)
    } while length == -Int(EINTR)
    guard length > 0 else { throw .noAnswer }
    let answer = ControlMessage(String(decoding: buffer[..<length], as: UTF8.self))
    if answer.word == "refused" {
      if descriptor >= 0 { close(descriptor) }
      let reason = answer["reason"].flatMap { HandleRefusal(rawValue: $0) }
      throw reason.map { .refused($0) } ?? .badAnswer(answer.rest)
    }
    return (answer, descriptor)
  }
}
