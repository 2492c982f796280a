import CLinux
import Channel
import Glibc

/// An instance's connection to the supervisor of a NIC: a UNIX socket of type SEQPACKET, over which the instance is
/// welcomed and later hears and says what is rare. One thread.
public struct SupervisorConnection: ~Copyable {
  /// Readable when the supervisor has said something or is gone.
  public let descriptor: Int32

  /// The descriptor that a program finds when `martlet run` or `martlet attach` has started it. An attach request has
  /// already been sent where one was due; MARTLET_SOCKET names the descriptor too.
  public static let inheritedDescriptor: Int32 = 3

  /// A connection that somebody else has made. The descriptor is the connection's from now on.
  public init(adopting descriptor: Int32 = inheritedDescriptor) { self.descriptor = descriptor }

  /// Connects to the socket of `martlet run --share PATH` and asks to be attached.
  /// - Throws: `AttachError.noSupervisor` where nobody can be reached, or
  ///   `AttachError.bad` for a name that no instance can have.
  public static func attach(
    path: String, request: AttachRequest
  ) throws(AttachError) -> SupervisorConnection {
    guard AttachRequest.isName(request.name) else {
      throw .bad(name: "name", value: request.name)
    }
    let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    let connection = SupervisorConnection(adopting: socket(AF_UNIX, type, 0))
    guard connection.descriptor >= 0 else { throw .noSupervisor(path: path, errno: errno) }
    var address = sockaddr_un()
    let length = linux_unix_address(&address, path)
    guard length > 0 else { throw .noSupervisor(path: path, errno: -length) }
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(connection.descriptor, $0, socklen_t(length))
      }
    }
    guard connected == 0 else { throw .noSupervisor(path: path, errno: errno) }
    guard ControlMessage.send(request.text, to: connection.descriptor) else { throw .ended }
    return connection
  }

  deinit { close(descriptor) }

  /// Says something to the supervisor, which may have gone.
  public func send(_ text: String) { ControlMessage.send(text, to: descriptor) }

  /// The next message.
  /// - Throws: `AttachError.noAnswer`, or `AttachError.ended` where the supervisor is gone.
  public func receive(
    withinMilliseconds limit: Int32
  ) throws(AttachError) -> (ControlMessage, descriptors: [Int32]) {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    let ready = poll(&entry, 1, limit)
    guard ready != 0 else { throw .noAnswer(milliseconds: limit) }
    switch ControlMessage.receive(from: descriptor) {
    case .message(let message, let descriptors): return (message, descriptors)
    case .nothing: throw .noAnswer(milliseconds: limit)
    case .end: throw .ended
    }
  }

  /// Waits for the answer to the attach request and leaves it where it is, for the program that takes the connection
  /// over.
  /// - Throws: as ``awaitWelcome(withinMilliseconds:)``.
  public func peekWelcome(
    withinMilliseconds limit: Int32 = 10_000
  ) throws(AttachError) -> Welcome {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, limit) > 0 else { throw .noAnswer(milliseconds: limit) }
    var buffer = [UInt8](repeating: 0, count: ControlMessage.maximumBytes)
    // Without room for descriptors, none are made.
    let length = recv(
      descriptor, &buffer, buffer.count, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
    guard length > 0 else { throw .ended }
    let message = ControlMessage(String(decoding: buffer[..<length], as: UTF8.self))
    return try Welcome(message, descriptorCount: nil)
  }

  /// Waits for the answer to the attach request.
  /// - Returns: the welcome and the descriptors that came with it: the caller's to close from now on.
  /// - Throws: `AttachError.refused` with the supervisor's reason, or what is wrong with its answer.
  public func awaitWelcome(
    withinMilliseconds limit: Int32 = 10_000
  ) throws(AttachError) -> (Welcome, descriptors: [Int32]) {
    let (message, descriptors) = try receive(withinMilliseconds: limit)
    do throws(AttachError) {
      return (try Welcome(message, descriptorCount: descriptors.count), descriptors)
    } catch {
      for descriptor in descriptors { close(descriptor) }
      throw error
    }
  }
}
