import CLinux
import Glibc
import Memory
import PCI
import Synchronization
import Testing
import VFIO
import VFIOUserMessages

@Suite struct HostileServerTests {
  /// The supervisor meets a server that answers the version message with `script`.
  func version(_ script: @escaping ScriptedServer.Script) -> PCIError? {
    let server = ScriptedServer(script)
    do {
      _ = try VFIOUserAccess(socket: server.client, name: "test", timeout: 1000)
      return nil
    } catch {
      return error
    }
  }

  @Test func nonsenseForAVersionIsNamed() {
    let cases: [(ScriptedServer.Script, String)] = [
      ({ header, _, _ in ScriptedServer.reply(header, [1, 0, 0, 0]) }, "version 1.0"),
      ({ header, _, _ in ScriptedServer.reply(header, [0, 0, 9, 0]) }, "version 0.9"),
      ({ header, _, _ in ScriptedServer.reply(header, []) }, "too short"),
      ({ header, _, _ in ScriptedServer.reply(header, [0, 0, 1, 0, 0x7b, 0]) }, "JSON"),
      ({ _, _, _ in Array("HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n".utf8) }, "protocol"),
      ({ header, _, _ in ScriptedServer.reply(header, [], size: 3) }, "less than its header"),
      ({ header, _, _ in ScriptedServer.reply(header, [], size: .max) }, "over the limit"),
    ]
    for (script, text) in cases {
      let error = version(script)
      #expect("\(error.map { "\($0)" } ?? "none")".contains(text))
    }
    #expect(version { _, _, _ in nil } == .gone("test"))
    #expect(
      version { header, _, _ in ScriptedServer.reply(header, [], errno: 22) }
        == .system(call: "vfio-user version", errno: 22))
  }

  @Test(arguments: [0, 1] as [UInt16])
  func aServerThatDoesNotAnswerIsGoneInTime(shift: UInt16) {
    let start = monotonic_nanoseconds()
    // Silence, and an endless stream of answers to something else.
    #expect(
      version { header, _, _ in
        shift == 0 ? [] : ScriptedServer.reply(header, [], identifier: header.identifier &+ shift)
      } == .gone("test"))
    #expect(monotonic_nanoseconds() - start < patience)
  }

  @Test func anEndlessStreamOfCommandsDoesNotHoldTheClient() {
    let start = monotonic_nanoseconds()
    let error = version { header, _, stream in
      let end = monotonic_nanoseconds() + 2 * patience
      var number: UInt16 = 0
      while monotonic_nanoseconds() < end {
        let sent: Void? = try? stream.send(
          MessageHeader(identifier: number, command: 11, size: 0), [UInt8](repeating: 0, count: 16),
          deadline: end)
        if sent == nil { return nil }
        number &+= 1
        usleep(1000)
      }
      return nil
    }
    #expect(error == .gone("test"))
    #expect(monotonic_nanoseconds() - start < patience)
  }

  func function(
    served: [DMARange] = [], _ script: @escaping ScriptedServer.Script
  ) throws -> (ScriptedServer, VFIOUserFunction) {
    let server = ScriptedServer(script)
    return (
      server, try VFIOUserFunction(negotiated: server.client, served: served, timeout: 1000)
    )
  }

  @Test func whatIsNoPCIDeviceIsRefused() {
    for info in [
      DeviceInfoMessage(flags: 1, regions: 9, interrupts: 5),
      DeviceInfoMessage(flags: 3, regions: 3, interrupts: 5),
      DeviceInfoMessage(flags: 3, regions: .max, interrupts: 5),
    ] {
      #expect(throws: PCIError.self) {
        _ = try function { header, _, _ in ScriptedServer.reply(header, info.bytes) }
      }
    }
  }

  @Test func tooLittleDataForAReadIsNotTaken() throws {
    for count in [0, 15, 16, 17] {
      let (_, function) = try function { header, payload, _ in
        header.command == 9
          ? ScriptedServer.reply(header, Array((payload + [0, 0]).prefix(count)))
          : ScriptedServer.good(header, payload)
      }
      #expect(throws: PCIError.self) { try function.readConfiguration(at: 0, width: .dword) }
      // The connection stays given up: nothing is asked of such a server again.
      #expect(throws: PCIError.self) { try function.reset() }
    }
  }

  @Test func registersOfADeadDeviceAreAllOnes() throws {
    let (server, function) = try function { header, payload, _ in
      header.command == 9 ? nil : ScriptedServer.good(header, payload)
    }
    let window = try function.openRegion(bar: 2).window(at: 0, byteCount: 4096)
    window.write32(1, at: 0)
    #expect(window.read32(at: 0) == .max)
    server.join()
    for _ in 0..<1000 { window.write16(1, at: 2) }
    #expect(window.read8(at: 0) == 0xff)
  }

  @Test func repliesThatNobodyAskedForDoNotPileUp() throws {
    let server = ScriptedServer(repliesToAll: true) { header, payload, _ in
      ScriptedServer.good(header, payload)
    }
    let function = try VFIOUserFunction(negotiated: server.client, timeout: 1000)
    let window = try function.openRegion(bar: 2).window(at: 0, byteCount: 4096)
    for _ in 0..<20_000 { window.write16(1, at: 2) }
    #expect(window.read32(at: 0) == 0x1111_1111)
  }

  @Test func commandsOfTheServerBetweenCommandAndReplyAreAnswered() throws {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 7, count: 4096)
    let (_, function) = try function(
      served: [DMARange(address: memory, iova: 0x1000, byteCount: 4096)]
    ) { header, payload, stream in
      guard header.command == 9 else { return ScriptedServer.good(header, payload) }
      // Each access, and the errno that it has to get: inside; past the end; wrapping; nowhere; unknown.
      let accesses: [(UInt16, UInt64, UInt64, UInt32)] = [
        (11, 0x1ff8, 8, 0), (11, 0x1ff9, 8, 22), (11, .max, 8, 22), (11, 0x1000, .max, 22),
        (11, 0, 8, 22), (12, 0x1000, 8, 0), (12, 0x1ffc, 8, 22), (15, 0, 0, 95),
      ]
      var wrong: UInt8 = 0
      for (number, (command, address, count, errno)) in accesses.enumerated() {
        var request = ByteWriter()
        DMAAccessMessage(address: address, count: count).write(to: &request)
        if command == 12 { request.write([UInt8](repeating: 9, count: 8)) }
        try? stream.send(
          MessageHeader(identifier: UInt16(number), command: command, size: 0), request.bytes,
          deadline: monotonic_nanoseconds() + patience)
        guard
          let answer = try? stream.receive(deadline: monotonic_nanoseconds() + patience),
          answer.header.isReply, answer.header.identifier == number, answer.header.errno == errno,
          errno != 0 || command == 12
            || Array(answer.payload.dropFirst(16)) == [7, 7, 7, 7, 7, 7, 7, 7]
        else {
          wrong += 1
          continue
        }
      }
      return ScriptedServer.reply(header, payload + [wrong, 0, 0, 0])
    }
    #expect(try function.readConfiguration(at: 0, width: .dword) == 0)
    #expect(memory.load(as: UInt64.self) == 0x0909_0909_0909_0909)
    #expect(memory.load(fromByteOffset: 8, as: UInt8.self) == 7)
  }

  @Test func regionsAreMappedOnlyWhereTheirFileCannotShrink() throws {
    for isSealed in [true, false] {
      let file = linux_memfd_create("region", LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING)
      defer { close(file) }
      ftruncate(file, 0x3000)
      if isSealed { _ = linux_fcntl(file, LINUX_F_ADD_SEALS, Int(LINUX_F_SEAL_SHRINK)) }
      let (_, function) = try function { header, payload, stream in
        guard header.command == 5 else { return ScriptedServer.good(header, payload) }
        // Of these areas only the first lies in region and file, in whole pages.
        let info = RegionInfoMessage(
          flags: 7, index: UInt32(payload[8]), size: 0x5000, offset: 0x1000,
          sparseAreas: [
            .init(offset: 0x1000, size: 0x1000), .init(offset: 0x2000, size: 0x1000),
            .init(offset: 0x4000, size: 0x2000), .init(offset: 0x800, size: 0x800),
            .init(offset: 0 &- 0x1000, size: 0x2000), .init(offset: 0, size: 0),
          ])
        try? stream.send(
          MessageHeader(
            identifier: header.identifier, command: header.command, size: 0, flags: .reply),
          info.reply(within: 1024), descriptors: [file],
          deadline: monotonic_nanoseconds() + patience)
        return []
      }
      let region = try function.openRegion(bar: 0)
      let mapped = try region.window(at: 0x1000, byteCount: 0x1000)
      let called = try region.window(at: 0x2000, byteCount: 0x3000)
      mapped.write32(0xabcd, at: 4)
      var value: UInt32 = 0
      pread(file, &value, 4, 0x2004)
      #expect(value == (isSealed ? 0xabcd : 0))
      #expect(mapped.read32(at: 4) == (isSealed ? 0xabcd : 0x1111_1111))
      #expect(called.read32(at: 0x2000) == 0x1111_1111)
    }
  }

  /// A hole in hugepages can be filled again only while there are free ones: a server that punches one could end us.
  @Test func regionsOnHugepagesAreNotMapped() throws {
    let hugepage = 2 << 20
    let file = linux_memfd_create(
      "region", LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING | LINUX_MFD_HUGETLB)
    defer { close(file) }
    guard file >= 0, ftruncate(file, hugepage) == 0 else { return }
    try #require(linux_fcntl(file, LINUX_F_ADD_SEALS, Int(LINUX_F_SEAL_SHRINK)) == 0)
    let (_, function) = try function { header, payload, stream in
      guard header.command == 5 else { return ScriptedServer.good(header, payload) }
      let info = RegionInfoMessage(flags: 7, index: UInt32(payload[8]), size: UInt64(hugepage))
      try? stream.send(
        MessageHeader(
          identifier: header.identifier, command: header.command, size: 0, flags: .reply),
        info.reply(within: 1024), descriptors: [file],
        deadline: monotonic_nanoseconds() + patience)
      return []
    }
    let window = try function.openRegion(bar: 0).window(at: 0, byteCount: 4096)
    #expect(window.read32(at: 0) == 0x1111_1111)
  }

  /// Answers that nobody asked for, one after the other and without a pause, until the client has gone.
  private static func flood(_ stream: MessageStream) {
    let bytes = (0..<512).flatMap { _ in
      ScriptedServer.reply(MessageHeader(identifier: 0x4321, command: 10, size: 0), [])
    }
    let end = monotonic_nanoseconds() + 2 * patience
    while monotonic_nanoseconds() < end {
      let sent = bytes.withUnsafeBytes {
        linux_send_descriptors(stream.descriptor, $0.baseAddress!, $0.count, nil, 0, 0)
      }
      if sent < 0 { return }
    }
  }

  @Test func aFloodOfAnswersDoesNotHoldTheClient() throws {
    let start = monotonic_nanoseconds()
    let error = version { _, _, stream in
      Self.flood(stream)
      return nil
    }
    #expect(error == .gone("test"))
    #expect(monotonic_nanoseconds() - start < patience)
  }

  /// The driver's stores do not wait for the server, and its loop must not read for ever what that says.
  @Test func aFloodOfAnswersDoesNotHoldTheDriver() throws {
    let (server, function) = try function { header, payload, stream in
      if header.command == 13 {
        Self.flood(stream)
        return nil
      }
      return ScriptedServer.good(header, payload)
    }
    let window = try function.openRegion(bar: 2).window(at: 0, byteCount: 4096)
    #expect(throws: PCIError.gone("vfio-user")) { try function.reset() }
    let start = monotonic_nanoseconds()
    for _ in 0..<6400 { window.write16(1, at: 2) }
    #expect(monotonic_nanoseconds() - start < patience)
    shutdown(server.client, Int32(SHUT_RDWR))
    server.join()
  }

  @Test func aFloodOfAnswersDoesNotHoldTheSupervisor() throws {
    let server = ScriptedServer { header, payload, stream in
      if header.command != 1 { Self.flood(stream) }
      return ScriptedServer.good(header, payload)
    }
    let access = try VFIOUserAccess(socket: server.client, name: "test", timeout: 1000)
    let file = linux_memfd_create("flood", LINUX_MFD_CLOEXEC)
    defer { close(file) }
    let start = monotonic_nanoseconds()
    // The flood begins with the first command after the version.
    #expect(throws: PCIError.self) {
      try access.unmapDMA(iova: 0, byteCount: 4096)
    }
    #expect(throws: PCIError.self) { try access.quiesce() }
    #expect(monotonic_nanoseconds() - start < patience)
  }

  @Test func aRegionThatWantsMoreRoomEachTimeIsAskedForTwice() throws {
    let asked = Atomic<Int>(0)
    let (_, function) = try function { header, payload, _ in
      guard header.command == 5 else { return ScriptedServer.good(header, payload) }
      let count = asked.add(1, ordering: .relaxed).newValue
      var bytes = RegionInfoMessage(flags: 3, index: UInt32(payload[8]), size: 4096)
        .reply(within: 32)
      let room = UInt32(1024 + 16 * count)
      for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: room >> UInt32(8 * index)) }
      return ScriptedServer.reply(header, bytes)
    }
    _ = try function.openRegion(bar: 0)
    #expect(asked.load(ordering: .relaxed) == 2)
  }

  @Test func answersInPiecesAndWithDescriptorsAreTaken() throws {
    let file = linux_memfd_create("gift", LINUX_MFD_CLOEXEC)
    defer { close(file) }
    let (_, function) = try function { header, payload, stream in
      let bytes = ScriptedServer.good(header, payload)
      for index in bytes.indices {
        // A descriptor with each byte: more than a message may have.
        _ = linux_send_descriptors(stream.descriptor, [bytes[index]], 1, [file], 1, 0)
      }
      return []
    }
    for _ in 0..<20 {
      #expect(try function.readConfiguration(at: 0, width: .dword) == 0x1111_1111)
    }
    // What came with them is closed: nobody else has the file open.
    var status = stat()
    fstat(file, &status)
    #expect(Self.openDescriptors(inode: status.st_ino) == 1)
  }

  /// How many descriptors of this process are of a file.
  static func openDescriptors(inode: ino_t) -> Int {
    (0..<Int32(4096)).count { number in
      var status = stat()
      return fstat(number, &status) == 0 && status.st_ino == inode
    }
  }
}
