import Channel
import Glibc

extension HandleService {
  /// One request of a peer, done.
  /// - Returns: the answer, and the descriptor that goes with it, which stays the table's.
  func answer(
    _ message: ControlMessage, _ descriptors: borrowing ReceivedDescriptors, _ peer: HandlePeer,
    _ now: UInt64
  ) throws(HandleRefusal) -> (text: String, descriptor: Int32?) {
    guard descriptors.count == 0 else { throw broker.count(.descriptors) }
    switch message.word {
    case "open":
      let id = try handleID(message)
      let handle = try broker.open(id, by: peer, now: now)
      return (
        "opened bytes=\(handle.range.count) rights=\(handle.rights.rawValue) kind=\(handle.kind.rawValue)",
        try memory.descriptor(handle.memory)
      )
    case "read":
      let id = try handleID(message)
      let (handle, range) = try broker.access(
        id, offset: try number("offset", in: message), byteCount: try number("bytes", in: message),
        writing: false, by: peer, now: now)
      return (
        "data hex=\(Hexadecimal.text(try counting { () throws(HandleRefusal) in try memory.read(handle.memory, range) }))",
        nil
      )
    case "write":
      let id = try handleID(message)
      guard let bytes = Hexadecimal.bytes(message["hex"] ?? "") else {
        throw broker.count(.malformed)
      }
      let (handle, range) = try broker.access(
        id, offset: try number("offset", in: message), byteCount: UInt64(bytes.count),
        writing: true, by: peer, now: now)
      try counting { () throws(HandleRefusal) in
        try memory.write(
          bytes, handle.memory, at: range.lowerBound, pageSize: handle.facts.pageSize)
      }
      return ("written", nil)
    case "revoke":
      let name: HandleName =
        if let number: UInt64 = message.number("number") {
          .number(number)
        } else {
          .id(try handleID(message))
        }
      let ended = try broker.revoke(name, by: peer)
      letGo(ended)
      return ("revoked number=\(ended.handle.number)", nil)
    case "list":
      let after = try number("after", in: message)
      return (broker.next(after: after, for: peer)?.text(now: now) ?? "end", nil)
    case "counters":
      guard broker.isAdministrator(peer) else { throw broker.count(.notOwner) }
      return (
        "counters " + counters.map { "\($0.name)=\($0.value)" }.joined(separator: " "), nil
      )
    default: throw broker.count(.malformed)
    }
  }

  private func counting<Result>(
    _ body: () throws(HandleRefusal) -> Result
  ) throws(HandleRefusal) -> Result {
    do throws(HandleRefusal) { return try body() } catch { throw broker.count(error) }
  }

  private func handleID(_ message: ControlMessage) throws(HandleRefusal) -> HandleID {
    guard let id = message["id"].flatMap({ HandleID($0) }) else { throw broker.count(.malformed) }
    return id
  }

  private func number(
    _ name: String, in message: ControlMessage
  ) throws(HandleRefusal) -> UInt64 {
    guard let number: UInt64 = message.number(name) else { throw broker.count(.malformed) }
    return number
  }

  /// `create`: the memory's descriptor, a revocable memory's writable one, and the receiver's pidfd if the message says so.
  func create(
    _ message: ControlMessage, _ descriptors: inout ReceivedDescriptors, _ peer: HandlePeer,
    _ now: UInt64
  ) throws(HandleRefusal) -> String {
    guard let kind = message["kind"].flatMap({ MemoryHandle.Kind(rawValue: $0) }),
      let rights = message["rights"].flatMap({ MemoryHandle.Rights(rawValue: $0) }),
      let uid: UInt32 = message.number("uid")
    else { throw broker.count(.malformed) }
    let offset = try number("offset", in: message)
    let byteCount = try number("bytes", in: message)
    let uses = try message["uses"].map { (_) throws(HandleRefusal) in
      try number("uses", in: message)
    }
    let expiry = try message["milliseconds"].map { (_) throws(HandleRefusal) -> UInt64 in
      let (time, wraps) = try number("milliseconds", in: message).multipliedReportingOverflow(
        by: 1_000_000)
      let (end, ends) = now.addingReportingOverflow(time)
      if wraps || ends { throw broker.count(.malformed) }
      return end
    }
    let isForProcess = message["process"] != nil
    let isRevocable = kind == .revocable
    guard descriptors.count == 1 + (isRevocable ? 1 : 0) + (isForProcess ? 1 : 0) else {
      throw broker.count(.descriptors)
    }
    let last = descriptors[descriptors.count - 1]
    let (facts, cutter, process) = try counting { () throws(HandleRefusal) in
      (
        try MemoryFacts(inspecting: descriptors[0]),
        isRevocable ? try MemoryFacts(inspecting: descriptors[1]) : nil,
        isForProcess ? try ProcessIdentity(pidfd: last) : nil
      )
    }
    if isForProcess { close(descriptors.take(descriptors.count - 1)) }
    let (id, handle) = try broker.create(
      MemoryHandle.Request(
        kind: kind, rights: rights, offset: offset, byteCount: byteCount,
        receiver: .init(uid: uid, process: process), expiry: expiry, uses: uses),
      memory: facts, cutter: cutter, by: peer, now: now)
    memory.adopt(
      descriptors.take(0), cutter: isRevocable ? descriptors.take(1) : nil, as: handle.memory)
    return "created id=\(id.text) number=\(handle.number)"
  }
}

extension MemoryHandle {
  /// A line of a list, for people and programs. Not the id: that goes to the receiver alone.
  func text(now: UInt64) -> String {
    var text = "handle number=\(number) kind=\(kind.rawValue) rights=\(rights.rawValue)"
    text += " offset=\(range.lowerBound) bytes=\(range.count) owner=\(ownerUID)"
    text += " uid=\(receiver.uid)"
    if let process = receiver.process { text += " pid=\(process.pid)" }
    if let usesLeft { text += " uses=\(usesLeft)" }
    if let expiry { text += " milliseconds=\(expiry > now ? (expiry - now) / 1_000_000 : 0)" }
    return text
  }
}
