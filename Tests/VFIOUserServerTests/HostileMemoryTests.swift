import CLinux
import Glibc
import Testing
import VFIO
import VFIOUserMessages

/// Clients whose memory is not what it should be, or that answer for it what they should not.
@Suite(.serialized) struct HostileMemoryTests {
  static let page: UInt64 = 4096

  /// A device that has just asked this client for bytes at 0x10000.
  private func asked(
    _ served: ServedModel, _ body: (RawClient, MessageHeader) throws -> Void
  ) throws {
    let client = try RawClient(served.path)
    try client.negotiate()
    let map = DMAMapMessage(flags: 3, offset: 0, address: 0x10000, size: Self.page)
    #expect(try client.ask(.dmaMap, map.bytes).errno == 0)
    let function = try VFIOUserFunction(negotiated: client.stream.descriptor)
    try function.setBusMaster(true)
    try function.openRegion(bar: 0).window(at: 0, byteCount: 4).write32(0x10, at: 0)
    let request = try client.stream.receive(deadline: client.deadline)
    #expect(request.header.command == VFIOUserCommand.dmaRead.rawValue)
    try body(client, request.header)
    #expect(client.isClosedByServer)
  }

  private func answer(
    _ header: MessageHeader, identifier: UInt16? = nil, count: UInt64 = 8, bytes: Int = 8
  ) -> [UInt8] {
    var writer = ByteWriter()
    MessageHeader(
      identifier: identifier ?? header.identifier, command: header.command,
      size: UInt32(32 + bytes), flags: .reply
    ).write(to: &writer)
    DMAAccessMessage(address: 0x10000, count: count).write(to: &writer)
    writer.write([UInt8](repeating: 0, count: bytes))
    return writer.bytes
  }

  @Test func wrongAnswersToTheDeviceEndTheClient() throws {
    let served = ServedModel(RegisterModel())
    let file = MemoryFile(byteCount: 4096)
    let answers: [(MessageHeader) -> ([UInt8], [Int32])] = [
      { (answer($0, identifier: $0.identifier &+ 1), []) }, { (answer($0, count: 9), []) },
      { (answer($0, count: .max), []) }, { (answer($0, bytes: 7), []) },
      { (answer($0), [file.descriptor]) },
    ]
    for wrong in answers {
      try asked(served) { (client, header) throws in
        let (bytes, descriptors) = wrong(header)
        client.send(bytes, descriptors: descriptors)
      }
    }
    served.end()
    #expect(served.server.refusals[.failedDMAMessage] == UInt64(answers.count))
  }

  /// Commands that come in between are kept, but not without limit.
  @Test func commandsInsteadOfAnAnswerDoNotPileUp() throws {
    let served = ServedModel(RegisterModel())
    let file = MemoryFile(byteCount: 4096)
    let large = [UInt8](repeating: 0, count: 1 << 20)
    let floods: [(count: Int, payload: [UInt8], descriptors: [Int32])] = [
      (20, large, []), (5000, [], []), (40, [], [Int32](repeating: file.descriptor, count: 16)),
    ]
    for flood in floods {
      try asked(served) { (client, _) throws in
        for _ in 0..<flood.count {
          client.send(client.bytes(4, flood.payload), descriptors: flood.descriptors)
        }
      }
    }
    served.end()
    #expect(served.server.refusals[.failedDMAMessage] == UInt64(floods.count))
  }

  /// The pages come anew, as zeros, and nobody has to notice.
  @Test func aHoleInTheMemoryIsMemory() throws {
    let model = RegisterModel()
    let served = ServedModel(model)
    let file = MemoryFile(byteCount: 1 << 20, seal: true)
    let client = try RawClient(served.path)
    try client.negotiate()
    let map = DMAMapMessage(flags: 3, offset: 0, address: 0x10000, size: 1 << 20)
    #expect(try client.ask(.dmaMap, map.bytes, descriptors: [file.descriptor]).errno == 0)
    let function = try VFIOUserFunction(negotiated: client.stream.descriptor)
    try function.setBusMaster(true)
    let registers = try function.openRegion(bar: 0).window(at: 0, byteCount: 4)
    for _ in 0..<20 {
      #expect(linux_punch_hole(file.descriptor, 0, 1 << 20) == 0)
      registers.write32(0x10, at: 0)
      // A read comes after the write, and the device's turn between two reads.
      var value: UInt64 = 0
      for _ in 0..<1000 where value == 0 {
        _ = registers.read32(at: 0)
        pread(file.descriptor, &value, 8, 8)
      }
      #expect(value == .max)
    }
    #expect(registers.read32(at: 0) == 0)
    shutdown(client.stream.descriptor, Int32(SHUT_WR))
    #expect(client.isClosedByServer)
    served.end()
    #expect(served.server.refusals.total == 0)
  }

  @Test func descriptorsThatAreNoMemoryOrNotEnoughOfItAreRefused() throws {
    try HostileClientTests().against("bad_dma_map") { (client) throws in
      func map(_ descriptor: Int32, flags: UInt32) throws -> Int32 {
        let message = DMAMapMessage(flags: flags, offset: 0, address: 1 << 32, size: Self.page)
        return try client.ask(.dmaMap, message.bytes, descriptors: [descriptor]).errno
      }
      let file = MemoryFile(byteCount: 4096)
      var pipe: [Int32] = [-1, -1]
      Glibc.pipe(&pipe)
      // Its other end is gone already.
      close(pipe[1])
      let wrong = [pipe[0], eventfd(0, 0), epoll_create1(0), open("/proc/self/maps", O_RDONLY)]
      let readOnly = open("/proc/self/fd/\(file.descriptor)", O_RDONLY)
      defer { for descriptor in wrong + [readOnly] { close(descriptor) } }
      for descriptor in wrong { #expect(try map(descriptor, flags: 1) != 0) }
      #expect(try map(readOnly, flags: 3) == EACCES)
      #expect(try map(readOnly, flags: 1) == 0)
      let all = DMAUnmapMessage(flags: DMAUnmapMessage.all, address: 0, size: 0)
      #expect(try client.ask(.dmaUnmap, all.bytes).errno == 0)
      let sealed = MemoryFile(byteCount: 4096)
      _ = linux_fcntl(sealed.descriptor, LINUX_F_ADD_SEALS, Int(LINUX_F_SEAL_WRITE))
      #expect(try map(sealed.descriptor, flags: 3) == EPERM)
    }
  }

  @Test func oneMapMoreThanThereIsRoomForIsRefused() throws {
    try HostileClientTests().against("bad_dma_map") { (client) throws in
      let file = MemoryFile(byteCount: 4096)
      for index in 0...UInt64(MessageLimits.dmaMapCount) {
        let map = DMAMapMessage(
          flags: 3, offset: 0, address: index * 2 * Self.page, size: Self.page)
        let error = try client.ask(.dmaMap, map.bytes, descriptors: [file.descriptor]).errno
        if error != (index < MessageLimits.dmaMapCount ? 0 : ENOSPC) {
          Issue.record("map \(index) gets \(error)")
          break
        }
      }
    }
  }

  /// Memory whose descriptor finds no number must not pass for memory that came without one.
  @Test func aDescriptorThatIsLostIsNoMapWithoutOne() throws {
    let server = try ServedProcess()
    let client = try server.connect()
    try client.negotiate()
    let file = MemoryFile(byteCount: 4096)
    let map = DMAMapMessage(flags: 3, offset: 0, address: 1 << 32, size: Self.page)
    func ask() throws -> Int32 {
      try client.ask(.dmaMap, map.bytes, descriptors: [file.descriptor]).errno
    }
    server.limitDescriptors(true)
    #expect(try ask() == EMFILE)
    server.limitDescriptors(false)
    #expect(try ask() == 0)
    let (report, code) = server.end()
    #expect(code == 0 && report.contains("\"lost_descriptors\":1"), "\(report)")
  }
}
