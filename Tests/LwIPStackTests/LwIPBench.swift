import CLwIP
import Channel
import Memory
import PlayedSupervisor
import Stacks

@testable import LwIPStack

/// lwIP's timer, called here instead of waiting: 250 ms a call.
@_silgen_name("tcp_tmr") func tcpTimer()

/// lwIP on a channel whose other end is in this process: what the stack sends comes out as frames, and frames go in.
/// There is one, because lwIP's state is global: its tests run one after the other.
final class LwIPBench {
  nonisolated(unsafe) static let shared = try! LwIPBench()

  static let address: UInt32 = 10 << 24 | 2
  static let port: UInt16 = 80
  static let mac: [UInt8] = [2, 0, 0, 0, 0, 2]
  private static let receiveBytes = 2 << 20
  private static let arenaBytes = 20 << 20

  private let supervisor: PlayedSupervisor
  let environment: InstanceEnvironment
  let stack: LwIPInterface
  private let channel: InstanceChannel
  private var host: HostEnd
  private var burst = Burst(capacity: 256)
  private var free: [UInt32]
  /// Says who handles the next connection.
  var accept: (ZeroCopyConnection) -> (any ConnectionHandler)? = { _ in nil }
  /// The device keeps what it is given, and completes nothing.
  var isHolding = false
  private var held: [UInt16] = []

  private init() throws {
    supervisor = try PlayedSupervisor(
      slots: 4096, use: .exclusive, macAddress: Self.mac, receiveBytes: Self.receiveBytes,
      arenaBytes: Self.arenaBytes)
    supervisor.sendWelcome()
    environment = try InstanceEnvironment(
      SupervisorConnection(adopting: supervisor.instanceSocket))
    channel = InstanceChannel(environment)
    host = supervisor.hostEnd()
    free = stride(from: UInt32(0), to: UInt32(Self.receiveBytes / 1024), by: 2).map { $0 }
    stack = try LwIPInterface(
      environment, InstanceArguments(["--address", "10.0.0.2/24"]), channel: channel)
    try stack.listen(port: Self.port) { connection in LwIPBench.shared.accept(connection) }
  }

  /// References to all segments.
  var references: Int { stack.buffers.totalReferences }

  func counter(_ name: String) -> UInt64 {
    _ = stack.flush()
    return environment.counters.read().first { $0.name == name }?.value ?? .max
  }

  /// A frame comes from the wire.
  func deliver(_ frame: [UInt8]) throws {
    while free.isEmpty { try takeBack() }
    let unit = free.removeLast()
    (environment.arena.address + Int(unit) * 1024).copyMemory(from: frame, byteCount: frame.count)
    burst.removeAll()
    burst.append(
      Descriptor(segment: unit, length: UInt32(frame.count), flags: .checksumValid))
    host.receive.push(&burst)
    try channel.ends[0].receive.pop(into: &burst)
    stack.input(burst, 0...0, queue: 0)
    burst.removeAll()
  }

  /// Everything that the stack has sent since, whole frames, read where they lie.
  func sent() throws -> [[UInt8]] {
    var frames: [[UInt8]] = []
    while true {
      _ = stack.flush()
      burst.removeAll()
      try host.transmit.pop(into: &burst)
      if burst.isEmpty { break }
      var frame: [UInt8] = []
      for index in 0..<burst.count {
        let slot = burst[index]
        frame += UnsafeRawBufferPointer(
          start: environment.arena.address + Int(slot.position), count: Int(slot.length))
        if !slot.flags.contains(.more) {
          frames.append(frame)
          frame = []
          held.append(slot.tag)
        }
      }
    }
    if !isHolding { completeAll() }
    try takeBack()
    return frames
  }

  /// The device has done with all that it has.
  func completeAll() {
    for tag in held { stack.complete(tag: tag) }
    held = []
  }

  private func takeBack() throws {
    _ = stack.flush()
    burst.removeAll()
    try host.free.pop(into: &burst)
    for index in 0..<burst.count { free.append(burst[index].segment) }
    burst.removeAll()
  }
}
