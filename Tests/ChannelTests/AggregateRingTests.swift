import CLinux
import Memory
import Testing

@testable import Channel

/// Aggregates through the rings of a channel: whole or not at all, over the ring's end, and whatever a peer writes.
@Suite struct AggregateRingTests {
  func channel() throws -> ChannelMemory {
    try ChannelMemory(layout: try #require(ChannelLayout(queues: 1, slots: 64)))
  }

  @Test func aggregatesCrossWholeOverTheRingsEnd() throws {
    let memory = try channel()
    var host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    var instance = InstanceEnd(memory, queue: 0, hostDoorbell: -1)
    var sending = Burst(capacity: 128)
    var got = Burst(capacity: 128)
    var sent = 0
    var taken = 0
    for round in 0..<3000 {
      if sending.isEmpty {
        // Of 1 to 37 slots, in packets of one to three.
        for number in 0..<(1 + round * 7 % 13) {
          for piece in 0...number % 3 {
            sending.append(
              Descriptor(
                segment: UInt32(sent), offset: UInt32(piece), length: 60,
                flags: piece < number % 3 ? .more : []))
          }
          sent += 1
        }
        sending.joinPackets()
      }
      instance.transmit.push(&sending)
      try host.transmit.pop(into: &got)
      let slots = got.count
      let packets = try got.openAggregates()
      var at = 0
      for _ in 0..<packets {
        var piece: UInt32 = 0
        while got[at].flags.contains(.more) {
          #expect(got[at].segment == UInt32(taken) && got[at].offset == piece)
          at += 1
          piece += 1
        }
        #expect(got[at].segment == UInt32(taken) && got[at].offset == piece)
        at += 1
        taken += 1
      }
      #expect(at == slots)
      got.removeAll()
    }
    #expect(taken == sent && sent > 10_000)
  }

  @Test func aPeerThatWritesAnyFlagsIsAnErrorOrPackets() throws {
    var state: UInt64 = 17
    func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state >> 33
    }
    var refused = 0
    var packets = 0
    for _ in 0..<2000 {
      let memory = try channel()
      var host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
      let layout = memory.layout
      let count = Int(next() % 9)
      let slots = (memory.address(layout.slots(0, .transmit))).assumingMemoryBound(
        to: Descriptor.self)
      for index in 0..<count {
        let flags = Descriptor.Flags(rawValue: UInt16(next() & (next() & 3 == 0 ? 31 : 17)))
        slots[index] = Descriptor(segment: UInt32(next()), length: UInt32(next()), flags: flags)
      }
      memory.address(layout.producerIndex(0, .transmit)).storeBytes(
        of: UInt32(count), as: UInt32.self)
      var got = Burst(capacity: 128)
      do throws(ChannelError) { try host.transmit.pop(into: &got) } catch { continue }
      do throws(AggregateError) {
        packets += try got.openAggregates()
        for index in 0..<got.count { #expect(!got[index].flags.contains(.aggregate)) }
      } catch {
        refused += 1
      }
    }
    #expect(refused > 300 && packets > 300)
  }

  @Test func aChainWithoutAnEndIsRefusedByTheRing() throws {
    let memory = try channel()
    var host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    let slots = memory.address(memory.layout.slots(0, .transmit)).assumingMemoryBound(
      to: Descriptor.self)
    for index in 0..<64 {
      slots[index] = Descriptor(segment: 1, length: 60, flags: [.more, .aggregate])
    }
    memory.address(memory.layout.producerIndex(0, .transmit)).storeBytes(of: 64, as: UInt32.self)
    var got = Burst(capacity: 128)
    var seen: ChannelError?
    do throws(ChannelError) { try host.transmit.pop(into: &got) } catch { seen = error }
    #expect(seen == .endlessPacket)
  }

  @Test func anInstanceGetsAggregatesWhereItWantsThem() throws {
    let memory = try channel()
    let host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    let instance = InstanceEnd(memory, queue: 0, hostDoorbell: -1)
    var wanted = [host.wantsAggregates]
    instance.wantAggregates()
    wanted.append(host.wantsAggregates)
    instance.wantAggregates(false)
    wanted.append(host.wantsAggregates)
    #expect(wanted == [false, true, false])
  }
}
