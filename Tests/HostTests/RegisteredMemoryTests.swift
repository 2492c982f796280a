import CLinux
import Glibc
import Memory
import Testing

@testable import Channel
@testable import Host

/// Applications' own memory that an instance sends from.
@Suite struct RegisteredMemoryTests {
  private static let place = SharedBench.arenaBytes

  private func frame(_ number: Int, from index: Int = 0) -> [UInt8] {
    SharedFrames.udp(
      from: SharedFrames.address(index), to: SharedFrames.far, number: number, payload: 900,
      isOutgoing: true)
  }

  private func piece(_ position: Int, _ frame: [UInt8], tag: Int) -> Descriptor {
    Descriptor(
      segment: UInt32(position / 1024), offset: UInt32(position % 1024),
      length: UInt32(frame.count), tag: UInt16(tag))
  }

  /// Registers memory from its second page on, mapped for the device.
  private func register(
    _ bench: SharedBench, _ peer: SharedPeer, _ memory: borrowing Arena
  ) throws {
    let bytes = memory.byteCount - 4096
    bench.tell(
      "register id=\(peer.id) offset=\(Self.place) bytes=\(bytes) from=4096", [memory.descriptor])
    #expect(try bench.waits(for: "registered id=\(peer.id) offset=\(Self.place)"))
    try bench.device.iommu.map(
      iova: SharedBench.windowIOVA + UInt64(SharedBench.hostArenaBytes + Self.place),
      byteCount: UInt64(bytes),
      address: bench.windowAddress + SharedBench.hostArenaBytes + Self.place, rights: .read)
  }

  @Test func itIsSentInPlaceAndGivenBackOnceNothingIsWithTheDevice() throws {
    let bench = try SharedBench(slots: 4)
    let peer = try bench.attach(0, registered: 2 << 20)
    let memory = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "application")
    try register(bench, peer, memory)
    // At an odd address, over the border of a page.
    let sent = frame(7)
    (memory.address + 4096 + 4001).copyMemory(from: sent, byteCount: sent.count)
    peer.send([piece(Self.place + 4001, sent, tag: 7)])
    bench.stepPath()
    bench.tell("unregister id=\(peer.id) offset=\(Self.place)")
    for _ in 0..<20 {
      bench.stepPath()
      bench.control.service()
    }
    #expect(try !bench.hears("unregistered"), "a packet is with the device")
    // Nobody else comes to the same place meanwhile.
    bench.tell(
      "register id=\(peer.id) offset=\(Self.place) bytes=4096 from=0", [memory.descriptor])
    #expect(try bench.waits(for: "refused id=\(peer.id) what=register offset=\(Self.place)"))
    #expect(try bench.waits(for: "unregistered id=\(peer.id) offset=\(Self.place)"))
    #expect(bench.wire.sent.map(\.frame) == [sent])
    // Only the headers were copied.
    #expect(bench.counters["tx_i0_header_bytes_copied"] == 128)
    // The instance may not know yet that it is gone: what it sends is dropped, and it goes on.
    peer.send([piece(Self.place + 4001, sent, tag: 8)])
    peer.send(frame(9), tag: 9)
    try bench.turns(20)
    try peer.take()
    #expect(peer.completed.sorted() == [7, 8, 9])
    #expect(bench.wire.sent.map(\.frame) == [sent, frame(9)])
    #expect(bench.counters["tx_i0_errors"] == 1)
    #expect(bench.device.iommu.faults.isEmpty)
    #expect(bench.isConserved([peer]) && bench.inFlight == 0)
  }

  @Test func onlyWhatIsRegisteredAndOnlyItsOwnInstanceCanSendFromIt() throws {
    let bench = try SharedBench(slots: 4)
    let peer = try bench.attach(0, registered: 2 << 20)
    let other = try bench.attach(1)
    let memory = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "application")
    try register(bench, peer, memory)
    // Behind its end: registered no more, or never.
    peer.send([piece(Self.place + (1 << 20) - 4096 - 100, frame(1), tag: 1)])
    try bench.turns(10)
    try peer.take()
    #expect(peer.completed == [1] && bench.wire.sent.isEmpty)
    // Another instance has nothing there.
    other.send([piece(Self.place, frame(2, from: 1), tag: 2)])
    #expect(try bench.waits(for: "closed id=\(other.id) reason=outside_its_memory"))
    peer.send([piece(Self.place + (2 << 20), frame(3), tag: 3)])
    #expect(try bench.waits(for: "closed id=\(peer.id) reason=outside_its_memory"))
    #expect(bench.wire.sent.isEmpty && bench.device.iommu.faults.isEmpty)
  }

  @Test func badRequestsAreRefused() throws {
    let bench = try SharedBench(slots: 4)
    let peer = try bench.attach(0, registered: 2 << 20)
    let memory = try Arena(byteCount: 4 << 20, pageSize: .ordinary, name: "application")
    let unsealed = linux_memfd_create("unsealed", LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING)
    defer { close(unsealed) }
    ftruncate(unsealed, 4 << 20)
    for (text, descriptor) in [
      ("offset=0 bytes=4096 from=0", memory.descriptor),
      ("offset=\(Self.place + 4096) bytes=4096 from=0", memory.descriptor),
      ("offset=\(Self.place) bytes=0 from=0", memory.descriptor),
      ("offset=\(Self.place) bytes=100 from=0", memory.descriptor),
      ("offset=\(Self.place) bytes=\((2 << 20) + 4096) from=0", memory.descriptor),
      ("offset=\(Self.place) bytes=4096 from=100", memory.descriptor),
      ("offset=\(Self.place) bytes=4096 from=\(4 << 20)", memory.descriptor),
      ("offset=\(Self.place) bytes=4096 from=\(Int.max)", memory.descriptor),
      ("offset=\(Self.place) bytes=4096 from=-4096", memory.descriptor),
      ("offset=\(Int.max) bytes=4096 from=0", memory.descriptor),
      ("offset=\(Self.place) bytes=\(Int.max) from=0", memory.descriptor),
      ("offset=\(Self.place) bytes=4096", memory.descriptor),
      ("offset=\(Self.place) bytes=4096 from=0", unsealed),
    ] {
      bench.tell("register id=\(peer.id) \(text)", [descriptor])
      #expect(try bench.waits(for: "refused id=\(peer.id) what=register"), "\(text)")
    }
    bench.tell("unregister id=\(peer.id) offset=\(Self.place)")
    #expect(try bench.waits(for: "refused id=\(peer.id) what=unregister"))
    // It cannot grow into where others' memory lies.
    bench.tell(
      "extent id=\(peer.id) offset=\(SharedBench.arenaBytes) bytes=\(2 << 20)",
      [memory.descriptor])
    #expect(try bench.waits(for: "refused id=\(peer.id) what=extent"))
  }

  @Test func aDetachedInstanceLeavesNothingMapped() throws {
    let bench = try SharedBench(slots: 4)
    let memory = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "application")
    for generation in 1...50 {
      let peer = try bench.attach(0, generation: generation, registered: 2 << 20)
      try register(bench, peer, memory)
      (memory.address + 4096).copyMemory(from: frame(generation), byteCount: frame(1).count)
      peer.send([piece(Self.place, frame(generation), tag: 1)])
      bench.stepPath()
      // Also in the midst of giving back.
      if generation % 2 == 0 { bench.tell("unregister id=\(peer.id) offset=\(Self.place)") }
      #expect(try bench.detach(peer))
      #expect(bench.wire.sent.last?.frame == frame(generation))
      let iova = SharedBench.windowIOVA + UInt64(SharedBench.hostArenaBytes + Self.place)
      #expect(bench.device.iommu.unmap(iova: iova, byteCount: (1 << 20) - 4096) != nil)
    }
    #expect(bench.device.iommu.faults.isEmpty && bench.inFlight == 0)
  }
}
