import CLinux
import CMartletChannel
import Foundation
import Memory
import PlayedSupervisor
import Steering
import Testing

@testable import Channel

/// The functions of martlet_channel.h against the host's end.
@Suite struct ClientHeaderTests {
  typealias Instance = UnsafeMutablePointer<martlet_instance>

  func attached(_ supervisor: PlayedSupervisor) throws -> Instance {
    let instance = Instance.allocate(capacity: 1)
    supervisor.sendWelcome()
    let result = martlet_adopt(instance, supervisor.instanceSocket)
    try #require(result == 0, "\(reason(instance))")
    #expect(supervisor.hear() == "ready")
    return instance
  }

  func drop(_ instance: Instance) {
    martlet_detach(instance)
    instance.deallocate()
  }

  func reason(_ instance: Instance) -> String {
    withUnsafeBytes(of: &instance.pointee.reason) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
  }

  func closed(_ instance: Instance) -> String? {
    martlet_closed(instance).map { String(cString: $0) }
  }

  @Test func aWelcomeIsTakenAsItIs() throws {
    let supervisor = try PlayedSupervisor(queues: 2)
    let instance = try attached(supervisor)
    defer { drop(instance) }
    #expect(instance.pointee.id == 257 && instance.pointee.mtu == 1500)
    #expect(instance.pointee.queue_count == 2 && instance.pointee.is_shared == 1)
    #expect(instance.pointee.mac.5 == 1 && instance.pointee.mac.0 == 2)
    #expect(instance.pointee.receive_bytes == PlayedSupervisor.receiveBytes)
    #expect(closed(instance) == nil)
    // Both see the same bytes.
    instance.pointee.arena[70000] = 42
    #expect(supervisor.arena.address.load(fromByteOffset: 70000, as: UInt8.self) == 42)
  }

  @Test func packetsCrossInBothDirections() throws {
    let supervisor = try PlayedSupervisor(queues: 2)
    let instance = try attached(supervisor)
    defer { drop(instance) }
    var host = supervisor.hostEnd(1)
    var burst = Burst(capacity: 64)
    var taken = [martlet_descriptor](repeating: martlet_descriptor(), count: 64)
    var received = 0
    // Many times round the rings of 64.
    for round in 0..<200 {
      burst.append(Offload(needsChecksum: true).slot)
      burst.append(Descriptor(segment: UInt32(round % 32), length: 5, flags: .more))
      burst.append(Descriptor(segment: UInt32(round % 32), offset: 5, length: 7))
      host.receive.push(&burst)
      let count = martlet_receive(instance, 1, &taken, 64)
      #expect(count == 3)
      #expect(taken[2].segment == UInt32(round % 32) && taken[2].offset == 5)
      received += Int(count)
      #expect(martlet_give_back(instance, 1, taken, count) == 3)
      try host.free.pop(into: &burst)
      // The metadata is no segment.
      let back = (burst.count, burst[0].segment)
      #expect(back == (2, UInt32(round % 32)))
      burst.removeAll()

      let packet = martlet_descriptor(
        segment: 64 + UInt32(round % 64), offset: 0, length: 60, flags: 0, tag: UInt16(round))
      #expect(martlet_send(instance, 1, [packet], 1) == 1)
      try host.transmit.pop(into: &burst)
      let sent = (burst.count, burst[0].tag, burst[0].segment)
      #expect(sent == (1, UInt16(round), 64 + UInt32(round % 64)))
      host.completion.push(&burst)
      burst.removeAll()
      #expect(martlet_completions(instance, 1, &taken, 64) == 1)
      #expect(taken[0].tag == UInt16(round))
    }
    #expect(received == 600)
    #expect(martlet_receive(instance, 0, &taken, 64) == 0)
  }

  @Test func onlyWholePacketsAreSent() throws {
    let supervisor = try PlayedSupervisor()
    let instance = try attached(supervisor)
    defer { drop(instance) }
    var packets = (0..<66).map {
      martlet_descriptor(
        segment: 64, offset: 0, length: 1,
        flags: $0 % 3 == 2 ? 0 : UInt16(MARTLET_MORE), tag: 0)
    }
    #expect(martlet_send(instance, 0, packets, 66) == 63)
    #expect(martlet_send(instance, 0, packets, 3) == 0)
    packets[0].flags = 0
    #expect(martlet_send(instance, 0, packets, 1) == 1)
    #expect(martlet_send(instance, 0, packets, 0) == 0)
  }

  @Test func whoeverSleepsIsWoken() throws {
    let supervisor = try PlayedSupervisor(queues: 2)
    let instance = try attached(supervisor)
    defer { drop(instance) }
    var host = supervisor.hostEnd()
    var burst = Burst(capacity: 4)
    // The host sleeps in both queues: only the one with news is rung.
    let (first, second) = (host.prepareToSleep(), supervisor.hostEnd(1).prepareToSleep())
    #expect(first && second)
    let packet = martlet_descriptor(segment: 64, offset: 0, length: 60, flags: 0, tag: 0)
    #expect(martlet_send(instance, 0, [packet], 1) == 1)
    martlet_ring(instance)
    martlet_ring(instance)
    var value: UInt64 = 0
    #expect(read(supervisor.hostEvents[0], &value, 8) == 8 && value == 1)
    #expect(read(supervisor.hostEvents[1], &value, 8) < 0)
    let maySleep = host.prepareToSleep()
    #expect(!maySleep)
    host.doorbell.awake()
    // The instance sleeps until the host has pushed something.
    let began = Date()
    var thread = pthread_t()
    pthread_create(
      &thread, nil,
      { sleeper in
        martlet_sleep(sleeper!.assumingMemoryBound(to: martlet_instance.self), 10_000)
        return nil
      }, instance)
    while relaxed_load32(supervisor.channel.address(supervisor.channel.layout.instanceSleeps(0)))
      == 0,
      began.timeIntervalSinceNow > -5
    { usleep(1000) }
    burst.append(Descriptor(segment: 0, length: 60))
    host.receive.push(&burst)
    host.doorbell.ring()
    pthread_join(thread, nil)
    #expect(began.timeIntervalSinceNow > -5)
    // It does not sleep where something has come.
    martlet_sleep(instance, 10_000)
    #expect(began.timeIntervalSinceNow > -5)
    #expect(
      relaxed_load32(supervisor.channel.address(supervisor.channel.layout.instanceSleeps(0))) == 0)
  }

  @Test func aFullCompletionRingIsNewsOnceItHasRoom() throws {
    let supervisor = try PlayedSupervisor()
    let instance = try attached(supervisor)
    defer { drop(instance) }
    var host = supervisor.hostEnd()
    var burst = Burst(capacity: 128)
    for tag in 0..<80 { burst.append(Descriptor(segment: 0, tag: UInt16(tag))) }
    host.completion.push(&burst)
    let waiting = burst.count
    #expect(waiting == 16)
    _ = host.prepareToSleep()
    var taken = [martlet_descriptor](repeating: martlet_descriptor(), count: 64)
    #expect(martlet_completions(instance, 0, &taken, 1) == 1)
    martlet_ring(instance)
    var value: UInt64 = 0
    #expect(read(supervisor.hostEvents[0], &value, 8) == 8)
    // Completions that were not waited for are no news.
    _ = host.prepareToSleep()
    #expect(martlet_completions(instance, 0, &taken, 1) == 1)
    martlet_ring(instance)
    #expect(read(supervisor.hostEvents[0], &value, 8) < 0)
  }

  @Test func theSupervisorIsHeard() throws {
    for (text, reason) in [
      ("closed reason=an index jumped", "an index jumped"),
      ("stop", "the supervisor asks the program to end"),
    ] {
      let supervisor = try PlayedSupervisor()
      let instance = try attached(supervisor)
      defer { drop(instance) }
      ControlMessage.send("link down", to: supervisor.socket)
      ControlMessage.send("shrink bytes=\(PlayedSupervisor.arenaBytes)", to: supervisor.socket)
      supervisor.channel.announceNews()
      #expect(closed(instance) == nil)
      #expect(supervisor.hear() == "shrunk bytes=\(PlayedSupervisor.arenaBytes)")
      ControlMessage.send(text, to: supervisor.socket)
      martlet_sleep(instance, 5000)
      #expect(closed(instance) == reason)
      #expect(martlet_receive(instance, 0, nil, 0) == -1)
    }
    // A program that never sleeps reads it in the channel.
    let supervisor = try PlayedSupervisor()
    let instance = try attached(supervisor)
    defer { drop(instance) }
    supervisor.channel.askToEnd()
    #expect(closed(instance) == "the supervisor asks the program to end")
  }

  @Test(arguments: EndReason.allCases)
  func everyReasonOfTheHostIsSaid(_ reason: EndReason) throws {
    let supervisor = try PlayedSupervisor()
    let instance = try attached(supervisor)
    defer { drop(instance) }
    supervisor.channel.end.close(reason)
    let said = try #require(closed(instance))
    #expect(!said.contains("does not know"))
    // One that is not in the list.
    let other = try PlayedSupervisor()
    let stranger = try attached(other)
    defer { drop(stranger) }
    other.channel.end.close(.detached)
    store32(other.channel, ChannelLayout.endReason, 1000)
    #expect(closed(stranger)?.contains("does not know") == true)
  }

  func store32(_ channel: borrowing ChannelMemory, _ offset: Int, _ value: UInt32) {
    release_store32(channel.address(offset), value)
  }
}
