import CLinux
import CMartletChannel
import Foundation
import Memory
import PlayedSupervisor
import Steering
import Testing

@testable import Channel

/// martlet_channel.h says what Channel says.
@Suite struct ClientHeaderLayoutTests {
  @Test func versionsAndWordsAreTheSame() {
    #expect(MARTLET_MESSAGES_VERSION == AttachRequest.version)
    #expect(MARTLET_CHANNEL_MAGIC == ChannelLayout.magic)
    #expect(MARTLET_CHANNEL_VERSION == ChannelLayout.version)
    #expect(MARTLET_PAGE == ChannelLayout.page)
    #expect(MARTLET_END_WORD == ChannelLayout.endWord)
    #expect(MARTLET_END_REASON == ChannelLayout.endReason)
    #expect(MARTLET_NEWS_WORD == ChannelLayout.newsWord)
    #expect(MARTLET_MAXIMUM_QUEUES == 64)
    #expect(ChannelLayout(queues: MARTLET_MAXIMUM_QUEUES, slots: 64) != nil)
    #expect(ChannelLayout(queues: MARTLET_MAXIMUM_QUEUES + 1, slots: 64) == nil)
  }

  @Test(arguments: [(1, 64), (2, 128), (3, 4096), (64, 256), (2, 65536)])
  func everythingLiesInTheSamePlace(_ queues: Int, _ slots: Int) throws {
    let layout = try #require(ChannelLayout(queues: queues, slots: slots))
    #expect(martlet_channel_bytes(UInt32(queues), UInt32(slots)) == layout.byteCount)
    for queue in 0..<queues {
      let control = martlet_control_offset(UInt32(slots), UInt32(queue))
      #expect(control + MARTLET_HOST_SLEEPS == layout.hostSleeps(queue))
      #expect(control + MARTLET_INSTANCE_SLEEPS == layout.instanceSleeps(queue))
      #expect(control + MARTLET_WANTS_AGGREGATES == layout.wantsAggregates(queue))
      for (number, ring) in [
        (MARTLET_RECEIVE, ChannelLayout.Ring.receive), (MARTLET_TRANSMIT, .transmit),
        (MARTLET_COMPLETION, .completion), (MARTLET_FREE, .free),
      ] {
        let index = control + number * MARTLET_RING_STRIDE
        #expect(index == layout.producerIndex(queue, ring))
        #expect(
          index + MARTLET_CONSUMER_INDEX == layout.consumerIndex(queue, ring))
        #expect(
          martlet_slots_offset(UInt32(slots), UInt32(queue), Int32(number))
            == layout.slots(queue, ring))
      }
    }
  }

  @Test func aDescriptorHasTheSameBytes() {
    var slot = Descriptor(
      segment: 0x0102_0304, offset: 0x0506_0708, length: 0x090a_0b0c, flags: .more, tag: 0x0d0e)
    let c = withUnsafeBytes(of: &slot) { $0.load(as: martlet_descriptor.self) }
    #expect(MemoryLayout<martlet_descriptor>.size == 16)
    #expect(c.segment == slot.segment && c.offset == slot.offset && c.length == slot.length)
    #expect(Int(c.flags) == MARTLET_MORE && c.tag == slot.tag)
    #expect(MARTLET_OFFLOAD == Int(Descriptor.Flags.offload.rawValue))
    #expect(MARTLET_CHECKSUM_VALID == Int(Descriptor.Flags.checksumValid.rawValue))
    #expect(MARTLET_AGGREGATE == Int(Descriptor.Flags.aggregate.rawValue))
    #expect(MARTLET_UNIT == Descriptor.unit)
    #expect(MARTLET_MAXIMUM_PIECES == Descriptor.maximumSlots)
  }

  @Test func descriptorsOfAWelcomeStandInTheSameOrder() {
    var welcome = WelcomeTests.plain
    welcome.hasCommands = true
    for (place, which) in [
      (MARTLET_FD_ARENA, InstanceDescriptor.arena), (MARTLET_FD_CHANNEL, .channel),
      (MARTLET_FD_COUNTERS, .counters), (MARTLET_FD_OWN_EVENT, .ownDoorbell),
      (MARTLET_FD_COMMANDS, .commands), (MARTLET_FD_COMMAND_EVENT, .commandDoorbell),
      (MARTLET_FD_HOST_EVENTS, .hostDoorbell(0)),
    ] { #expect(welcome.position(of: which) == place) }
  }
}

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
    nonisolated(unsafe) let sleeper = instance
    let thread = Thread { martlet_sleep(sleeper, 10_000) }
    let began = Date()
    thread.start()
    while relaxed_load32(supervisor.channel.address(supervisor.channel.layout.instanceSleeps(0)))
      == 0,
      began.timeIntervalSinceNow > -5
    { usleep(1000) }
    burst.append(Descriptor(segment: 0, length: 60))
    host.receive.push(&burst)
    host.doorbell.ring()
    while !thread.isFinished, began.timeIntervalSinceNow > -5 { usleep(1000) }
    #expect(thread.isFinished)
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

/// A host, or a supervisor, that breaks the rules ends the channel and not the program.
@Suite struct HostileHostTests {
  let tests = ClientHeaderTests()

  @Test func indicesThatMakeNoSenseCloseTheChannel() throws {
    for (ring, index) in [
      (ChannelLayout.Ring.receive, UInt32(65)), (.receive, .max), (.completion, 1 << 31),
    ] {
      let supervisor = try PlayedSupervisor()
      let instance = try tests.attached(supervisor)
      defer { tests.drop(instance) }
      release_store32(
        supervisor.channel.address(supervisor.channel.layout.producerIndex(0, ring)), index)
      var taken = [martlet_descriptor](repeating: martlet_descriptor(), count: 64)
      let count =
        ring == .receive
        ? martlet_receive(instance, 0, &taken, 64) : martlet_completions(instance, 0, &taken, 64)
      #expect(count == -1)
      #expect(tests.closed(instance)?.contains("index") == true)
    }
  }

  @Test func aConsumerThatClaimsTooMuchIsNotBelieved() throws {
    let supervisor = try PlayedSupervisor()
    let instance = try tests.attached(supervisor)
    defer { tests.drop(instance) }
    let packets = [martlet_descriptor](
      repeating: martlet_descriptor(segment: 64, offset: 0, length: 1, flags: 0, tag: 0), count: 64)
    #expect(martlet_send(instance, 0, packets, 64) == 64)
    let index = supervisor.channel.address(supervisor.channel.layout.consumerIndex(0, .transmit))
    for claimed in [UInt32(65), .max, 1 << 31] {
      release_store32(index, claimed)
      #expect(martlet_send(instance, 0, packets, 1) == 0)
    }
    release_store32(index, 64)
    #expect(martlet_send(instance, 0, packets, 1) == 1)
  }

  @Test func piecesOutsideTheReceivePartCloseTheChannel() throws {
    for slot in [
      Descriptor(segment: .max, length: 1), Descriptor(segment: 0, offset: .max, length: 1),
      Descriptor(segment: 63, offset: 1000, length: 25), Descriptor(segment: 64, length: 1),
      Descriptor(segment: 0, length: .max),
      Descriptor(segment: .max, offset: .max, length: .max),
    ] {
      let supervisor = try PlayedSupervisor()
      let instance = try tests.attached(supervisor)
      defer { tests.drop(instance) }
      var host = supervisor.hostEnd()
      var burst = Burst(capacity: 1)
      burst.append(slot)
      host.receive.push(&burst)
      var taken = [martlet_descriptor](repeating: martlet_descriptor(), count: 64)
      #expect(martlet_receive(instance, 0, &taken, 64) == -1, "\(slot)")
      #expect(tests.closed(instance)?.contains("outside") == true)
    }
  }

  @Test func aPacketWithoutEndClosesTheChannel() throws {
    let supervisor = try PlayedSupervisor()
    let instance = try tests.attached(supervisor)
    defer { tests.drop(instance) }
    let memory = supervisor.channel.address(supervisor.channel.layout.slots(0, .receive))
      .assumingMemoryBound(to: Descriptor.self)
    for index in 0..<64 { memory[index] = Descriptor(segment: 0, length: 1, flags: .more) }
    release_store32(
      supervisor.channel.address(supervisor.channel.layout.producerIndex(0, .receive)), 64)
    var taken = [martlet_descriptor](repeating: martlet_descriptor(), count: 64)
    #expect(martlet_receive(instance, 0, &taken, 64) == -1)
    #expect(tests.closed(instance)?.contains("without end") == true)
  }

  @Test(arguments: [
    ("id=257", "id=x"), ("mtu=1500", "mtu=10"), ("queues=1", "queues=0"), ("queues=1", "queues=65"),
    ("queues=1", "queues=2"), ("slots=64", "slots=65"), ("slots=64", "slots=128"),
    ("slots=64", "slots=99999999999999999999"), ("receive-bytes=65536", "receive-bytes=131072"),
    ("arena-bytes=131072", "arena-bytes=262144"), ("mac=02", "mac=zz"), ("version=2", "version=1"),
    ("welcome ", "hello "), ("commands=no", "commands=yes"), ("mtu=1500 ", ""),
  ])
  func aWelcomeThatMakesNoSenseIsRefused(_ right: String, _ wrong: String) throws {
    let supervisor = try PlayedSupervisor()
    #expect(supervisor.welcome.text.contains(right))
    supervisor.sendWelcome(supervisor.welcome.text.replacing(right, with: wrong))
    let instance = ClientHeaderTests.Instance.allocate(capacity: 1)
    defer { instance.deallocate() }
    #expect(martlet_adopt(instance, supervisor.instanceSocket) == -1)
    #expect(!tests.reason(instance).isEmpty)
  }

  @Test func descriptorsThatAreNoMemoryAreRefused() throws {
    for place in 0..<2 {
      for wrong in ["/dev/null", "/proc/self/exe"] {
        let supervisor = try PlayedSupervisor()
        let file = open(wrong, O_RDONLY | O_CLOEXEC)
        defer { close(file) }
        var descriptors = supervisor.descriptors
        descriptors[place] = file
        supervisor.sendWelcome(descriptors: descriptors)
        let instance = ClientHeaderTests.Instance.allocate(capacity: 1)
        defer { instance.deallocate() }
        #expect(martlet_adopt(instance, supervisor.instanceSocket) == -1)
        #expect(tests.reason(instance).contains("memory"))
      }
    }
  }

  @Test func aRefusalAndASilentEndAreSaid() throws {
    let instance = ClientHeaderTests.Instance.allocate(capacity: 1)
    defer { instance.deallocate() }
    let refusing = try PlayedSupervisor()
    refusing.sendWelcome(Refusal(reason: "the token is wrong").text, descriptors: [])
    #expect(martlet_adopt(instance, refusing.instanceSocket) == -1)
    #expect(tests.reason(instance) == "the token is wrong")
    let gone = try PlayedSupervisor()
    shutdown(gone.socket, Int32(SHUT_RDWR))
    #expect(martlet_adopt(instance, gone.instanceSocket) == -1)
    #expect(tests.reason(instance).contains("closed the connection"))
    #expect(martlet_attach(instance, "/nowhere/at/all", "name=a") == -1)
    #expect(tests.reason(instance).contains("No such file"))
    #expect(martlet_attach(instance, String(repeating: "x", count: 200), "name=a") == -1)
    #expect(tests.reason(instance).contains("too long"))
  }
}
