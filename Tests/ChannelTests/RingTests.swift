import CLinux
import Glibc
import Memory
import Testing

@testable import Channel

@Suite struct RingTests {
  func channel(slots: Int = 64) throws -> ChannelMemory {
    try ChannelMemory(layout: try #require(ChannelLayout(queues: 2, slots: slots)))
  }

  @Test func packetsCrossWhole() throws {
    let memory = try channel()
    var host = HostEnd(memory, queue: 1, instanceDoorbell: -1)
    var instance = InstanceEnd(memory, queue: 1, hostDoorbell: -1)
    var burst = Burst(capacity: 128)
    // Two packets of 40 slots: only one has room in a ring of 64.
    for packet in 0..<2 {
      for piece in 0..<40 {
        burst.append(
          Descriptor(
            segment: UInt32(packet), offset: UInt32(piece), length: 1,
            flags: piece < 39 ? .more : []))
      }
    }
    host.receive.push(&burst)
    let left = burst.count
    #expect(left == 40)
    var small = Burst(capacity: 20)
    try instance.receive.pop(into: &small)
    let none = small.count
    #expect(none == 0)
    var got = Burst(capacity: 128)
    try instance.receive.pop(into: &got)
    let first = (got.count, got[0].segment, got[39].flags)
    #expect(first == (40, 0, []))
    host.receive.push(&burst)
    got.removeAll()
    try instance.receive.pop(into: &got)
    let second = (got.count, got[0].segment)
    #expect(second == (40, 1))
  }

  @Test func indicesRunThroughTheirEnd() throws {
    let memory = try channel()
    let layout = memory.layout
    for offset in [
      layout.producerIndex(0, .transmit), layout.consumerIndex(0, .transmit),
    ] { memory.address(offset).storeBytes(of: UInt32.max - 10, as: UInt32.self) }
    var host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    var instance = InstanceEnd(memory, queue: 0, hostDoorbell: -1)
    host.transmit.next = .max - 10
    host.transmit.peerIndex = .max - 10
    instance.transmit.next = .max - 10
    instance.transmit.peerIndex = .max - 10
    var burst = Burst(capacity: 8)
    var got = Burst(capacity: 8)
    for number in 0..<100 {
      burst.append(Descriptor(segment: UInt32(number)))
      instance.transmit.push(&burst)
      try host.transmit.pop(into: &got)
      let one = (got.count, got[0].segment)
      #expect(one == (1, UInt32(number)))
      got.removeAll()
    }
  }

  @Test(arguments: [65, 1000, UInt32.max, 1 << 31]) func anIndexThatJumpsIsRefused(to index: UInt32)
    throws
  {
    let memory = try channel()
    var host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    memory.address(memory.layout.producerIndex(0, .free)).storeBytes(of: index, as: UInt32.self)
    var got = Burst(capacity: 8)
    var seen: ChannelError?
    do throws(ChannelError) { try host.free.pop(into: &got) } catch { seen = error }
    #expect(seen == .indexJump(from: 0, to: index, slots: 64))
    let none = got.count
    #expect(none == 0)
  }

  @Test func aConsumerThatClaimsTooMuchGainsNothing() throws {
    let memory = try channel()
    var host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    var burst = Burst(capacity: 128)
    for _ in 0..<64 { burst.append(Descriptor(segment: 1)) }
    host.receive.push(&burst)
    memory.address(memory.layout.consumerIndex(0, .receive)).storeBytes(
      of: UInt32(5000), as: UInt32.self)
    burst.append(Descriptor(segment: 2))
    host.receive.push(&burst)
    let left = burst.count
    #expect(left == 1)
  }

  @Test func aPacketWithoutEndIsRefused() throws {
    let memory = try channel(slots: 256)
    var host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    let slots = memory.address(memory.layout.slots(0, .transmit)).assumingMemoryBound(
      to: Descriptor.self)
    for index in 0..<256 { slots[index] = Descriptor(segment: 1, length: 1, flags: .more) }
    memory.address(memory.layout.producerIndex(0, .transmit)).storeBytes(
      of: UInt32(256), as: UInt32.self)
    var got = Burst(capacity: 128)
    var seen: ChannelError?
    do throws(ChannelError) { try host.transmit.pop(into: &got) } catch { seen = error }
    #expect(seen == .endlessPacket)
  }

  @Test func theHeaderIsComparedAtAttach() throws {
    let layout = try #require(ChannelLayout(queues: 1, slots: 64))
    let memory = try ChannelMemory(layout: layout)
    #expect(attachError(dup(memory.descriptor), layout) == nil)
    let other = try #require(ChannelLayout(queues: 1, slots: 128))
    #expect(attachError(dup(memory.descriptor), other) != nil)
    memory.address(4).storeBytes(of: UInt32(99), as: UInt32.self)
    #expect(
      attachError(dup(memory.descriptor), layout)
        == .foreign(magic: ChannelLayout.magic, version: 99))
    let unsealed = linux_memfd_create("test", 0)
    ftruncate(unsealed, layout.byteCount)
    #expect(attachError(unsealed, layout) == .memory(.notSealed))
  }

  private func attachError(_ descriptor: Int32, _ layout: ChannelLayout) -> ChannelError? {
    do throws(ChannelError) {
      _ = try ChannelMemory(adopting: descriptor, layout: layout)
      return nil
    } catch {
      return error
    }
  }

  /// A million descriptors from one thread to another, which sleeps whenever it can: none lost, none doubled, no wake
  /// lost.
  @Test func nothingIsLostBetweenThreads() throws {
    let memory = try channel(slots: 256)
    let bell = eventfd(0, 0)
    defer { close(bell) }
    let count: UInt32 = 300_000
    var instance = InstanceEnd(memory, queue: 0, hostDoorbell: bell)
    let host = HostEnd(memory, queue: 0, instanceDoorbell: -1)
    let box = HostBox(host, bell)
    var thread = pthread_t()
    pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<HostBox>.fromOpaque(argument!).takeUnretainedValue().consume(300_000)
        return nil
      }, Unmanaged.passUnretained(box).toOpaque())
    var burst = Burst(capacity: 32)
    var number: UInt32 = 0
    while number < count || burst.count > 0 {
      while burst.room > 0 && number < count {
        burst.append(Descriptor(segment: number))
        number += 1
      }
      instance.transmit.push(&burst)
      instance.doorbell.ring()
      if burst.count > 0 { sched_yield() }
    }
    pthread_join(thread, nil)
    #expect(box.wrong == 0)
    #expect(box.next == count)
    #expect(box.timeouts == 0)
  }
}

/// The consuming thread of a test.
final class HostBox: @unchecked Sendable {
  private var end: HostEnd
  private let bell: Int32
  var next: UInt32 = 0
  var wrong = 0
  var timeouts = 0

  init(_ end: consuming HostEnd, _ bell: Int32) {
    self.end = end
    self.bell = bell
  }

  func consume(_ count: UInt32) {
    var burst = Burst(capacity: 64)
    while next < count && timeouts == 0 {
      guard (try? end.transmit.pop(into: &burst)) != nil else {
        wrong += 1
        return
      }
      for index in 0..<burst.count {
        if burst[index].segment != next { wrong += 1 }
        next &+= 1
      }
      let moved = burst.count
      burst.removeAll()
      if moved == 0 {
        if end.prepareToSleep() {
          var entry = pollfd(fd: bell, events: Int16(POLLIN), revents: 0)
          if poll(&entry, 1, 5000) == 0 { timeouts += 1 }
          var value: UInt64 = 0
          if entry.revents != 0 { _ = read(bell, &value, 8) }
        }
        end.doorbell.awake()
      }
    }
  }
}

@Suite struct CounterPageTests {
  @Test func countersAreReadByName() throws {
    let page = try CounterPage(capacity: 3)
    page.name(0, "rx_q0_packets")
    page.name(2, "tx_q0_packets")
    page.set(0, 5)
    page.set(2, .max)
    let reader = try CounterPage(adopting: dup(page.descriptor), capacity: 3, writable: false)
    let values = reader.read()
    #expect(values.map(\.name) == ["rx_q0_packets", "tx_q0_packets"])
    #expect(values.map(\.value) == [5, .max])
  }

  @Test func namesOfAHostileWriterAreCut() throws {
    let page = try CounterPage(capacity: 2)
    page.name(0, "a\u{1b}[31m")
    page.name(1, "\n\n")
    #expect(page.read().map(\.name) == ["a"])
  }
}
