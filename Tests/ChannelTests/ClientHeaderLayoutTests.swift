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
