import CLinux
import Driver
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing
import VFIO
import VFIOUserServer
import Virtio
import VirtioNetDevice
import Wire

@testable import VirtioNet

func waits(for descriptor: Int32, milliseconds: Int32 = 30_000) -> Bool {
  var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
  return poll(&entry, 1, milliseconds) == 1
}

@Suite(.serialized) struct DriverOverSocketTests {
  static let ringsBytes = 1 << 20
  static let arenaBytes = 1 << 20

  /// The whole way: supervisor's access, driver's function, driver, rings, model, wire; twice, over two connections.
  @Test func theDriverRunsOverASocketAndTheNextClientToo() throws {
    let (near, far) = try DatagramWire.pair()
    let device = VirtioNetDevice(wire: near)
    let served = ServedModel(device, wire: near.descriptor)
    for _ in 0..<2 {
      let access = try VFIOUserAccess(path: served.path)
      try traffic(access, far.descriptor)
      try access.quiesce()
    }
    served.end()
    #expect(device.violations.first == [])
    #expect(device.iommu.faults == [])
    #expect(served.server.refusals.total == 0)
    #expect(served.server.clients == 2)
    #expect(device.counters.receivedFrames == 2000 && device.counters.sentFrames == 2000)
  }

  private func traffic(_ access: VFIOUserAccess, _ wire: Int32) throws {
    let rings = try Arena(byteCount: Self.ringsBytes, pageSize: .ordinary, name: "rings")
    let arena = try Arena(byteCount: Self.arenaBytes, pageSize: .ordinary, name: "arena")
    try access.mapDMA(
      DMAMemory(
        address: rings.address, descriptor: rings.descriptor, offset: 0,
        byteCount: UInt64(Self.ringsBytes)), iova: 0x10_0000, rights: [.read, .write])
    let half = UInt64(Self.arenaBytes / 2)
    try access.mapDMA(
      DMAMemory(address: arena.address, descriptor: arena.descriptor, offset: 0, byteCount: half),
      iova: 0x4000_0000, rights: [.write])
    try access.mapDMA(
      DMAMemory(
        address: arena.address + Int(half), descriptor: arena.descriptor, offset: half,
        byteCount: half), iova: 0x4000_0000 + half, rights: [.read])
    let function = try VFIOUserFunction(negotiated: access.descriptor, name: access.name)
    #expect(try function.interrupts == InterruptCapability(kind: .msix, vectors: 4))
    var driver = try VirtioNet(
      DriverResources(
        function: function,
        rings: DMAZone(
          DMARange(address: rings.address, iova: 0x10_0000, byteCount: Self.ringsBytes)),
        arena: DMARange(address: arena.address, iova: 0x4000_0000, byteCount: Self.arenaBytes),
        queuePairs: 1, ringSize: 256))
    var pair = driver.takeQueuePair(0)
    try driver.start()
    var ledger = SegmentLedger(firstUnit: 0, byteCount: Self.arenaBytes / 2)
    var posts = Burst(capacity: 64)
    var received = Burst(capacity: 64)
    var sending = Burst(capacity: 64)
    var completed = Burst(capacity: 64)
    let count = 1000
    var seen = 0
    var done = 0
    var back = 0
    var buffer = [UInt8](repeating: 0, count: 2048)
    for number in 0..<count {
      ledger.lend(upTo: min(64, pair.receiveRoom), into: &posts)
      try pair.postReceive(&posts)
      let bytes = Self.frame(number)
      #expect(send(wire, bytes, bytes.count, 0) == bytes.count)
      (arena.address + Self.arenaBytes / 2).copyMemory(from: bytes, byteCount: bytes.count)
      sending.append(
        Descriptor(
          segment: UInt32(Self.arenaBytes / 2 / 1024), length: UInt32(bytes.count),
          tag: UInt16(number)))
      try pair.transmit(&sending)
      for _ in 0..<200_000 where seen <= number || done <= number {
        try pair.receive(into: &received)
        for index in 0..<received.count {
          let slot = received[index]
          let data = UnsafeRawBufferPointer(
            start: arena.address + Int(slot.position), count: Int(slot.length))
          #expect(Array(data) == Self.frame(seen))
          seen += 1
          ledger.give(slot.segment)
          try ledger.takeBack(slot.segment)
        }
        received.removeAll()
        try pair.completeTransmit(into: &completed)
        done += completed.count
        completed.removeAll()
        if seen <= number || done <= number { usleep(20) }
      }
      let length = recv(wire, &buffer, buffer.count, Int32(MSG_DONTWAIT))
      if length == bytes.count && Array(buffer[0..<length]) == bytes { back += 1 }
    }
    #expect(seen == count && done == count && back == count)
    driver.stop()
  }

  /// The client takes the memory away while the rings run, then goes without a word.
  @Test func memoryThatIsUnmappedUnderRunningRingsIsAFault() throws {
    let (near, far) = try DatagramWire.pair()
    let device = VirtioNetDevice(wire: near)
    let served = ServedModel(device, wire: near.descriptor)
    do {
      let access = try VFIOUserAccess(path: served.path)
      let memory = try Arena(byteCount: 2 << 20, pageSize: .ordinary, name: "memory")
      try access.mapDMA(
        DMAMemory(
          address: memory.address, descriptor: memory.descriptor, offset: 0, byteCount: 2 << 20),
        iova: 0x10_0000, rights: [.read, .write])
      let function = try VFIOUserFunction(negotiated: access.descriptor)
      var driver = try VirtioNet(
        DriverResources(
          function: function,
          rings: DMAZone(
            DMARange(address: memory.address, iova: 0x10_0000, byteCount: 1 << 20)),
          arena: DMARange(
            address: memory.address + (1 << 20), iova: 0x20_0000, byteCount: 1 << 20),
          queuePairs: 1, ringSize: 256))
      var pair = driver.takeQueuePair(0)
      try driver.start()
      let page: UInt64 = 4096
      #expect(throws: PCIError.system(call: "vfio-user dmaUnmap", errno: EINVAL)) {
        try access.unmapDMA(iova: 0x10_0000, byteCount: page)
      }
      try access.unmapDMA(iova: 0x10_0000, byteCount: 2 << 20)
      var sending = Burst(capacity: 4)
      sending.append(Descriptor(segment: 0, length: 60, tag: 1))
      try pair.transmit(&sending)
      let bytes = Self.frame(1)
      _ = send(far.descriptor, bytes, bytes.count, 0)
      usleep(20_000)
      #expect(try function.vendor == 0x1af4)
    }
    try VFIOUserAccess(path: served.path).quiesce()
    served.end()
    #expect(device.iommu.faultCount > 0)
    #expect(served.server.clients == 2)
  }

  static func frame(_ number: Int) -> [UInt8] {
    [0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 8, 0]
      + (14..<(60 + number % 1400)).map { UInt8(truncatingIfNeeded: $0 + number) }
  }

  @Test func memoryWithoutADescriptorIsReachedByMessages() throws {
    let model = RegisterModel()
    let served = ServedModel(model)
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0x5a, count: 8192)
    do {
      let client = try RawClient(served.path)
      try client.negotiate()
      let map = dmaMap(address: 0x10000, size: 8192)
      #expect(try client.ask(.dmaMap, map).errno == 0)
      let function = try VFIOUserFunction(
        negotiated: client.stream.descriptor,
        served: [DMARange(address: memory, iova: 0x10000, byteCount: 4096)])
      try function.setBusMaster(true)
      let event = eventfd(0, 0)
      defer { close(event) }
      try function.enableInterrupts(.msix, eventfds: [-1, event])
      let registers = try function.openRegion(bar: 0).window(at: 0, byteCount: 4)
      registers.write32(0x10, at: 0)
      // The read waits for its reply, and answers what the device asks meanwhile.
      var failures = registers.read32(at: 0)
      for _ in 0..<1000 where !waits(for: event, milliseconds: 1) {
        failures = registers.read32(at: 0)
      }
      #expect(failures == 0)
      #expect(memory.load(fromByteOffset: 8, as: UInt64.self) == 0xa5a5_a5a5_a5a5_a5a5)
      // Mapped at the server, but not offered here: the device is refused, and lives on.
      var value: UInt64 = 0
      read(event, &value, 8)
      registers.write32(0x11, at: 0)
      for _ in 0..<1000 where !waits(for: event, milliseconds: 1) {
        failures = registers.read32(at: 0)
      }
      #expect(registers.read32(at: 0) == 1)
      #expect(memory.load(fromByteOffset: 4096 + 8, as: UInt64.self) == 0x5a5a_5a5a_5a5a_5a5a)
      // Not mapped at all: a fault, and no message.
      read(event, &value, 8)
      registers.write32(0x100, at: 0)
      #expect(waits(for: event))
      #expect(registers.read32(at: 0) == 2)
    }
    served.end()
    #expect(served.server.messageAccesses == 4)
    #expect(model.iommu.faultCount == 2)
  }

  @Test func aClientThatAnswersNoDMAIsDismissed() throws {
    let model = RegisterModel()
    let served = ServedModel(model)
    for answer in [[], [1, 2, 3], [UInt8](repeating: 0, count: 16)] as [[UInt8]] {
      let client = try RawClient(served.path)
      try client.negotiate()
      #expect(try client.ask(.dmaMap, dmaMap(address: 0x10000, size: 4096)).errno == 0)
      let function = try VFIOUserFunction(negotiated: client.stream.descriptor)
      try function.setBusMaster(true)
      try function.openRegion(bar: 0).window(at: 0, byteCount: 4).write32(0x10, at: 0)
      if !answer.isEmpty {
        let request = try client.stream.receive(deadline: client.deadline)
        #expect(request.header.command == 11)
        try client.stream.send(
          .init(
            identifier: request.header.identifier, command: 11, size: 0, flags: .reply), answer,
          deadline: client.deadline)
      }
      #expect(client.isClosedByServer)
    }
    served.end()
    #expect(served.server.refusals[.failedDMAMessage] == 3)
  }

  @Test func memoryThatIsCutShortEndsTheClientAndNotTheProcess() throws {
    let model = RegisterModel()
    let served = ServedModel(model)
    for round in 0..<2 {
      let file = MemoryFile(byteCount: 1 << 20)
      let access = try VFIOUserAccess(path: served.path)
      let pointer = linux_mmap(
        nil, 1 << 20, PROT_READ | PROT_WRITE, Int32(MAP_SHARED), file.descriptor, 0)!
      defer { munmap(pointer, 1 << 20) }
      try access.mapDMA(
        DMAMemory(address: pointer, descriptor: file.descriptor, offset: 0, byteCount: 1 << 20),
        iova: 0x10000, rights: [.read, .write])
      let function = try VFIOUserFunction(negotiated: access.descriptor)
      try function.setBusMaster(true)
      let event = eventfd(0, 0)
      defer { close(event) }
      try function.enableInterrupts(.msix, eventfds: [-1, event])
      let registers = try function.openRegion(bar: 0).window(at: 0, byteCount: 4)
      registers.write32(0x10, at: 0)
      #expect(waits(for: event))
      #expect(pointer.load(fromByteOffset: 8, as: UInt64.self) == .max)
      #expect(ftruncate(file.descriptor, 0) == 0)
      registers.write32(0x10, at: 0)
      // The server looks after its memory between two turns.
      var error: PCIError?
      for _ in 0..<3000 where error == nil {
        usleep(10_000)
        do { _ = try function.readConfiguration(at: 0, width: .word) } catch let e { error = e }
      }
      #expect(error == .gone("vfio-user"))
      #expect(registers.read32(at: 0) == .max)
      _ = round
    }
    served.end()
    #expect(served.server.refusals[.truncatedMemory] == 2)
  }

  @Test func interruptsAreMaskedByMessageByTableAndByFunction() throws {
    let model = RegisterModel()
    let served = ServedModel(model)
    do {
      let client = try RawClient(served.path)
      try client.negotiate()
      let function = try VFIOUserFunction(negotiated: client.stream.descriptor)
      let event = eventfd(0, Int32(EFD_NONBLOCK))
      defer { close(event) }
      try function.enableInterrupts(.msix, eventfds: [-1, event])
      let table = try function.openRegion(bar: 1).window(at: 0, byteCount: 32)
      #expect(table.read32(at: 28) & 1 == 0)
      func fires() throws -> Bool {
        #expect(
          try client.ask(.setInterrupts, Self.irqs(data: 1, action: 32, start: 1, count: 1)).errno
            == 0)
        var value: UInt64 = 0
        return read(event, &value, 8) == 8
      }
      #expect(try fires())
      #expect(
        try client.ask(.setInterrupts, Self.irqs(data: 1, action: 8, start: 0, count: 2)).errno == 0
      )
      #expect(try !fires())
      #expect(
        try client.ask(.setInterrupts, Self.irqs(data: 2, action: 16, start: 0, count: 2, [0, 1]))
          .errno == 0)
      // What was pending comes with the unmasking.
      #expect(waits(for: event))
      #expect(try fires())
      table.write32(1, at: 28)
      #expect(try !fires())
      table.write32(0, at: 28)
      _ = table.read32(at: 28)
      #expect(waits(for: event))
      #expect(try fires())
      try function.disableInterrupts(.msix)
      #expect(try !fires())
    }
    served.end()
  }

  static func irqs(
    data: UInt32, action: UInt32, start: UInt32, count: UInt32, _ extra: [UInt8] = []
  ) -> [UInt8] {
    words([20 + UInt32(extra.count), data | action, 2, start, count]) + extra
  }
}

func words(_ values: [UInt32]) -> [UInt8] {
  values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
}

/// A map for reading and writing, without a descriptor.
func dmaMap(address: UInt64, size: UInt64) -> [UInt8] {
  words([
    32, 3, 0, 0, UInt32(truncatingIfNeeded: address), UInt32(address >> 32),
    UInt32(truncatingIfNeeded: size), UInt32(size >> 32),
  ])
}
