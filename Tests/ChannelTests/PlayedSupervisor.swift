import CLinux
import Channel
import Foundation
import Memory

/// What a supervisor and a driver host give one instance, made by a test: memory, channel, eventfds and the socket.
final class PlayedSupervisor {
  static let receiveBytes = 64 << 10
  static let arenaBytes = 128 << 10
  let welcome: Welcome
  let arena: Arena
  let channel: ChannelMemory
  let counters: CounterPage
  /// Wakes the instance.
  let instanceEvent: Int32
  /// Wake the host, one for each queue.
  let hostEvents: [Int32]
  /// Our end of the control socket.
  let socket: Int32
  /// The instance's end: of whoever takes it.
  let instanceSocket: Int32

  init(queues: Int = 1, slots: Int = 64, use: NICUse = .shared) throws {
    let layout = ChannelLayout(queues: queues, slots: slots)!
    arena = try Arena(byteCount: Self.arenaBytes, pageSize: .ordinary, name: "test-arena")
    channel = try ChannelMemory(layout: layout)
    counters = try CounterPage(capacity: 64)
    instanceEvent = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
    hostEvents = (0..<queues).map { _ in eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)) }
    var ends: [Int32] = [-1, -1]
    let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    socketpair(AF_UNIX, type, 0, &ends)
    (socket, instanceSocket) = (ends[0], ends[1])
    welcome = Welcome(
      id: 257, macAddress: [2, 0, 0, 0, 0, 1], mtu: 1500, offloads: 0, queues: queues,
      channel: layout, receiveBytes: Self.receiveBytes, arenaBytes: Self.arenaBytes,
      maximumBytes: Self.arenaBytes, use: use)
  }

  deinit {
    for descriptor in [instanceEvent, socket] + hostEvents { close(descriptor) }
  }

  var descriptors: [Int32] {
    [arena.descriptor, channel.descriptor, counters.descriptor, instanceEvent] + hostEvents
  }

  /// Sends the welcome, or another text in its place, with the descriptors or others.
  func sendWelcome(_ text: String? = nil, descriptors others: [Int32]? = nil) {
    ControlMessage.send(
      text ?? welcome.text, descriptors: others ?? descriptors, to: socket)
  }

  /// The next message from the instance, within five seconds.
  func hear() -> String? {
    var entry = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, 5000) > 0,
      case .message(let message, _) = ControlMessage.receive(from: socket)
    else { return nil }
    return message.rest.isEmpty ? message.word : "\(message.word) \(message.rest)"
  }

  func hostEnd(_ queue: Int = 0) -> HostEnd {
    HostEnd(channel, queue: queue, peerEvent: instanceEvent)
  }
}
