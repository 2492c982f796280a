import CLinux
import Capture
import Channel
import Glibc
import Handles

/// A connection to the supervisor's socket: who is at its other end, as the kernel knows it, and how far it is. What it
/// says is never believed. One thread.
final class PeerConnection {
  let socket: Int32
  let uid: uid_t
  let pid: pid_t
  /// Readable when the process that connected has ended; -1 where there is no such process for us.
  let process: Int32
  var stage = Stage.silent
  /// Whether the process at the other end is the one that connected. It is not where the supervisor has made both ends.
  var isIdentified = true
  /// When it is closed if nothing happens, in milliseconds of the monotonic clock; nil for never.
  var deadline: UInt64?
  /// It waits for memory that others have.
  var wantsMemory = false
  /// A text that came with the last message.
  private var text: String?
  /// What it has said of a filter for a capture.
  var filter: [FilterInstruction] = []
  /// Words that it has said within this second.
  private var words = 0
  private var second: UInt64 = 0

  enum Stage {
    /// Has not said yet what it wants.
    case silent
    /// Wants to be an instance as soon as another has let go of what it asks for.
    case waiting(AttachRequest)
    /// Is, or is to be, the instance in this slot.
    case instance(Int)
    /// Asks as an administrator.
    case administrator
    /// Captures packets.
    case capturing
  }

  /// How many words it may say within a second.
  private var wordsPerSecond: Int {
    if case .administrator = stage { 1024 } else { Self.wordsPerSecond }
  }
  static let wordsPerSecond = 64

  private let closer: DescriptorCloser

  /// - Parameters:
  ///   - socket: the connection's from now on.
  ///   - closer: closes what the peer sends and nobody has asked for.
  init?(socket: Int32, deadline: UInt64?, closer: DescriptorCloser) {
    var pid: pid_t = 0
    var uid = uid_t.max
    guard linux_peer(socket, &pid, &uid) == 0 else {
      close(socket)
      return nil
    }
    self.socket = socket
    self.uid = uid
    self.pid = pid
    self.deadline = deadline
    self.closer = closer
    process = linux_peer_process(socket, pid)
  }

  deinit {
    // Descriptors that nobody has read would be closed with the socket, in this thread.
    shutdown(socket, Int32(SHUT_RDWR))
    drain(atMost: .max)
    close(socket)
    if process >= 0 { close(process) }
  }

  /// Who it is to the broker of memory handles; nil where that cannot be told.
  var handlePeer: HandlePeer? {
    guard isIdentified, process >= 0, let identity = try? ProcessIdentity(pidfd: process),
      identity.pid == pid
    else { return nil }
    // No connection of the broker has this number.
    return HandlePeer(connection: 0, uid: uid, process: identity)
  }

  /// The slot of its instance.
  var slot: Int? { if case .instance(let slot) = stage { slot } else { nil } }

  /// Sends without waiting: a peer that does not read loses what is said to it.
  @discardableResult
  func say(_ text: String, _ descriptors: [Int32] = []) -> Bool {
    ControlMessage.send(text, descriptors: descriptors, to: socket, flags: Int32(MSG_DONTWAIT))
  }

  /// Says why it is closed. What the peer has sent and nobody has read would keep it from reading that.
  func sayLast(_ text: String) {
    say(text)
    drain(atMost: 16)
  }

  /// Reads what the peer has sent, so many messages at most; descriptors are closed where that may take its time.
  private func drain(atMost limit: Int) {
    var count = 0
    while count < limit,
      case .message(_, let descriptors) = ControlMessage.receive(from: socket)
    {
      for descriptor in descriptors { closer.close(descriptor, of: uid) }
      count += 1
    }
  }

  /// The text that came with the last message, once.
  func takeText() -> String? {
    defer { text = nil }
    return text
  }

  /// What has come over the socket.
  enum News {
    case nothing
    case message(ControlMessage)
    /// The peer has closed the connection or ended.
    case end
    /// It has sent what nobody has asked for.
    case offence(String)
  }

  func next(at now: UInt64) -> News {
    // What a process has said before its end is heard.
    switch ControlMessage.receive(from: socket) {
    case .nothing: return process >= 0 && isReadable(process) ? .end : .nothing
    case .end: return .end
    case .message(let message, let descriptors):
      let isText = message.word == "rules" && descriptors.count == 1 && slot == nil
      text = nil
      if isText, let byteCount: Int = message.number("bytes") {
        text = SharedText.read(descriptors[0], byteCount: byteCount)
      }
      for descriptor in descriptors { closer.close(descriptor, of: uid) }
      if !descriptors.isEmpty && !isText { return .offence("descriptors") }
      if now / 1000 != second {
        second = now / 1000
        words = 0
      }
      words += 1
      return words > wordsPerSecond ? .offence("flood") : .message(message)
    }
  }
}
