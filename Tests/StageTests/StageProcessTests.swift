import CLinux
import Channel
import Foundation
import Memory
import Testing

@testable import Stage

/// A supervisor and a driver host, made by a test, and a stage's loop on a thread of its own.
final class PlayedHost: @unchecked Sendable {
  static let arenaBytes = 1 << 20
  let arena: Arena
  let channel: ChannelMemory
  let counters: CounterPage
  let ends: UnsafeMutablePointer<HostEnd>
  let socket: Int32
  private let finished = DispatchSemaphore(value: 0)
  // Written by the thread before it ends, read after that.
  private var failure: String?

  init(_ body: @escaping ClosureStage.Body, queues: Int = 1, slots: Int = 64) throws {
    var arguments = StageArguments()
    (arguments.queues, arguments.slots, arguments.isConfined) = (queues, slots, false)
    arguments.arenaBytes = Self.arenaBytes
    arena = try Arena(byteCount: Self.arenaBytes, pageSize: .ordinary, name: "test-arena")
    channel = try ChannelMemory(layout: ChannelLayout(queues: queues, slots: slots)!)
    counters = try CounterPage(capacity: StageDescriptor.counterCapacity)
    let (ringing, ringed) = try CommandDoorbell.pair()
    var sockets: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &sockets)
    socket = sockets[0]
    let configuration = linux_memfd_create("test-configuration", 0)
    _ = write(configuration, "key=value", 9)
    var descriptors: [StageDescriptor: Int32] = [
      .control: sockets[1], .arena: dup(arena.descriptor), .channel: dup(channel.descriptor),
      .counters: dup(counters.descriptor), .configuration: configuration, .doorbell: ringed,
    ]
    let events = (0..<queues).map { _ in eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)) }
    descriptors[.firstHostDoorbell] = -1
    ends = .allocate(capacity: queues)
    for queue in 0..<queues {
      (ends + queue).initialize(
        to: HostEnd(channel, queue: queue, instanceDoorbell: ringing))
    }
    let given = descriptors
    let stage = SendableBody(body: body)
    let thread = Thread { [self, arguments] in
      do throws(StageError) {
        let process = try StageProcess(arguments) { which, queue in
          which == .firstHostDoorbell ? events[Int(queue)] : given[which]!
        }
        guard process.configuration == "key=value" else { throw StageError("no configuration") }
        var loop = try StageLoop(ClosureStage(stage.body), process)
        try loop.run()
      } catch {
        failure = error.description
      }
      finished.signal()
    }
    thread.start()
  }

  private struct SendableBody: @unchecked Sendable { let body: ClosureStage.Body }

  func hear() -> String? {
    var entry = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, 5000) > 0,
      case .message(let message, _) = ControlMessage.receive(from: socket)
    else { return nil }
    return message.word
  }

  /// A packet in a place of its own of 2 KiB.
  func packet(_ number: UInt16, _ way: StagedPacket.Way, _ byteCount: UInt32 = 100) -> StagedPacket
  {
    StagedPacket(
      number: number, way: way, position: UInt64(number) * 2048 + 64, byteCount: byteCount,
      roomBefore: 64, roomBehind: 1984 - byteCount)
  }

  func give(_ packets: [StagedPacket], queue: Int = 0) {
    var burst = Burst(capacity: 3 * packets.count)
    for packet in packets { packet.append(to: &burst) }
    give(&burst, queue: queue)
  }

  func give(_ burst: inout Burst, queue: Int = 0) {
    let began = Date()
    while !burst.isEmpty, began.timeIntervalSinceNow > -30 {
      ends[queue].receive.push(&burst)
      ends[queue].doorbell.ring()
      usleep(50)
    }
  }

  /// As many packets as are awaited, within thirty seconds.
  func take(_ count: Int, queue: Int = 0) throws -> [StagedPacket] {
    var packets: [StagedPacket] = []
    var burst = Burst(capacity: 192)
    let began = Date()
    while packets.count < count, began.timeIntervalSinceNow > -30 {
      burst.removeAll()
      try ends[queue].transmit.pop(into: &burst)
      for first in stride(from: 0, to: burst.count, by: 3) {
        packets.append(try #require(StagedPacket(burst.start + first)))
      }
      if burst.isEmpty { usleep(100) }
    }
    return packets
  }

  /// The stage's end, five seconds at most from now.
  func end() throws -> String? {
    try #require(finished.wait(timeout: .now() + 5) == .success)
    return failure
  }

  func stop() throws -> String? {
    ControlMessage.send("stop", to: socket)
    return try end()
  }
}

@Suite struct StageProcessTests {
  @Test func packetsGoThroughAllQueuesInPlace() throws {
    let host = try PlayedHost(
      { packet, _ in
        packet.store8(packet.number8(at: 0) &+ 1, at: 0)
        _ = packet.insert(4, at: 0)
        return packet.number8(at: 4) % 2 == 0 ? .pass : .drop
      }, queues: 3)
    #expect(host.hear() == "ready")
    for queue in 0..<3 {
      // More than the ring holds.
      let packets = (0..<200).map { host.packet(UInt16($0), $0 % 3 == 0 ? .transmit : .receive) }
      for packet in packets {
        host.arena.address.storeBytes(
          of: UInt8(truncatingIfNeeded: packet.number), toByteOffset: Int(packet.position),
          as: UInt8.self)
      }
      var out: [StagedPacket] = []
      for first in stride(from: 0, to: 200, by: 20) {
        host.give(Array(packets[first..<first + 20]), queue: queue)
        out += try host.take(20, queue: queue)
      }
      #expect(out.map(\.number) == packets.map(\.number))
      for packet in out {
        let before = packets[Int(packet.number)]
        #expect(packet.way == (packet.number % 2 == 0 ? .none : before.way))
        #expect(packet.position == before.position - 4 && packet.byteCount == 104)
        #expect(packet.roomBefore == 60 && packet.roomBehind == before.roomBehind)
      }
    }
    #expect(try host.stop() == nil)
    let counters = Dictionary(uniqueKeysWithValues: host.counters.read())
    #expect(counters["rx_packets"] == 399 && counters["tx_packets"] == 201)
    #expect(
      (counters["rx_passed"] ?? 0) + (counters["tx_passed"] ?? 0) == 300
        && (counters["rx_dropped"] ?? 0) + (counters["tx_dropped"] ?? 0) == 300)
  }

  @Test func heldPacketsAndSparesComeBackAtTheEnd() throws {
    let host = try PlayedHost({ packet, output in
      _ = output.make(.transmit, byteCount: 60) { $0.store8(7, at: 0) }
      return .hold
    })
    #expect(host.hear() == "ready")
    host.give([host.packet(300, .none, 0), host.packet(301, .none, 0)])
    host.give((0..<5).map { host.packet(UInt16($0), .receive) })
    let made = try host.take(2)
    #expect(made.map(\.number) == [301, 300] && made.allSatisfy { $0.way == .transmit })
    #expect(made.allSatisfy { $0.byteCount == 60 })
    // One more spare, which is not used.
    host.give([host.packet(300, .none, 0)])
    usleep(20_000)
    #expect(try host.stop() == nil)
    let rest = try host.take(6)
    #expect(rest.map(\.number) == [0, 1, 2, 3, 4, 300])
    #expect(rest.dropLast().allSatisfy { $0.way == .receive } && rest[5].way == .none)
    let counters = Dictionary(uniqueKeysWithValues: host.counters.read())
    #expect(counters["no_spare"] == 3 && counters["holding"] == 0)
  }

  @Test func itEndsWithItsSupervisor() throws {
    let host = try PlayedHost({ _, _ in .pass })
    #expect(host.hear() == "ready")
    close(host.socket)
    #expect(try host.end() == nil)
    let other = try PlayedHost({ _, _ in .pass })
    #expect(other.hear() == "ready")
    other.channel.askToEnd()
    other.ends[0].doorbell.ringAlways()
    #expect(try other.end() == nil)
  }

  /// What lies outside the arena, has no number, is there twice or is no packet at all.
  @Test func whatTheHostGivesIsChecked() throws {
    let end = UInt64(PlayedHost.arenaBytes)
    func refusal(_ change: (inout StagedPacket) -> Void) throws -> String {
      let host = try PlayedHost({ _, _ in .hold })
      #expect(host.hear() == "ready")
      var packet = host.packet(1, .receive)
      change(&packet)
      host.give([packet])
      return try host.end() ?? ""
    }
    let changes: [(inout StagedPacket) -> Void] = [
      { $0.position = 0 }, { $0.position = end }, { $0.byteCount = .max },
      { $0.roomBehind = .max }, { $0.roomBefore = .max }, { $0.position = 1 << 41 },
      { $0.number = 1024 }, { $0.number = .max },
      { ($0.position, $0.roomBehind) = (end - 100, 1) },
    ]
    for change in changes { #expect(try refusal(change).contains("outside its memory")) }
    // The last byte is still in it.
    let host = try PlayedHost({ _, _ in .hold })
    var last = host.packet(1, .receive)
    (last.position, last.roomBehind) = (end - 100, 0)
    host.give([last, host.packet(1, .receive)])
    #expect(try host.end()?.contains("same packet twice") == true)
    for index in 0..<3 {
      let host = try PlayedHost({ _, _ in .pass })
      #expect(host.hear() == "ready")
      var burst = Burst(capacity: 3)
      host.packet(1, .receive).append(to: &burst)
      burst[index].flags = index == 2 ? .offload : Descriptor.Flags.more.union(.aggregate)
      host.give(&burst)
      #expect(try host.end()?.contains("is no packet") == true)
    }
  }
}
