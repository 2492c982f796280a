import CLinux
import Channel
import Glibc
import Memory

/// What a supervisor and a driver host give one instance, made by a test: memory, channel, doorbells and the socket.
public final class PlayedSupervisor {
  public static let receiveBytes = 64 << 10
  public static let arenaBytes = 128 << 10
  public static let macAddress: [UInt8] = [2, 0, 0, 0, 0, 1]
  public let welcome: Welcome
  public let arena: Arena
  public let channel: ChannelMemory
  public let counters: CounterPage
  /// The host's end and the instance's of what wakes the instance.
  public let ringingEnd: Int32
  public let instanceEnd: Int32
  /// Wake the host, one for each queue.
  public let hostEvents: [Int32]
  /// Our end of the control socket.
  public let socket: Int32
  /// The instance's end: of whoever takes it.
  public let instanceSocket: Int32

  public init(
    queues: Int = 1, slots: Int = 64, use: NICUse = .shared,
    macAddress: [UInt8] = PlayedSupervisor.macAddress,
    receiveBytes: Int = PlayedSupervisor.receiveBytes,
    arenaBytes: Int = PlayedSupervisor.arenaBytes
  ) throws {
    let layout = ChannelLayout(queues: queues, slots: slots)!
    arena = try Arena(byteCount: arenaBytes, pageSize: .ordinary, name: "test-arena")
    channel = try ChannelMemory(layout: layout)
    counters = try CounterPage(capacity: 64)
    (ringingEnd, instanceEnd) = try CommandDoorbell.pair()
    hostEvents = (0..<queues).map { _ in eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)) }
    var ends: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends)
    for end in ends { _ = linux_fcntl(end, F_SETFD, Int(FD_CLOEXEC)) }
    (socket, instanceSocket) = (ends[0], ends[1])
    welcome = Welcome(
      id: 257, macAddress: macAddress, mtu: 1500, offloads: 0, queues: queues,
      channel: layout, receiveBytes: receiveBytes, arenaBytes: arenaBytes,
      maximumBytes: arenaBytes, use: use)
  }

  deinit {
    for descriptor in [ringingEnd, instanceEnd, socket] + hostEvents { close(descriptor) }
  }

  public var descriptors: [Int32] {
    [arena.descriptor, channel.descriptor, counters.descriptor, instanceEnd] + hostEvents
  }

  /// Sends the welcome, or another text in its place, with the descriptors or others.
  public func sendWelcome(_ text: String? = nil, descriptors others: [Int32]? = nil) {
    ControlMessage.send(
      text ?? welcome.text, descriptors: others ?? descriptors, to: socket)
  }

  /// The next message from the instance, within five seconds.
  public func hear() -> String? {
    var entry = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, 5000) > 0,
      case .message(let message, _) = ControlMessage.receive(from: socket)
    else { return nil }
    return message.rest.isEmpty ? message.word : "\(message.word) \(message.rest)"
  }

  public func hostEnd(_ queue: Int = 0) -> HostEnd {
    HostEnd(channel, queue: queue, instanceDoorbell: ringingEnd)
  }
}
