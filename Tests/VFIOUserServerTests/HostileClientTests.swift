import CLinux
import Glibc
import Testing
import VFIOUserMessages

/// Clients that mean no good (or know no better): each gets an errno or is dismissed, what it gave is closed and
/// unmapped, and the next one is served.
@Suite(.serialized) struct HostileClientTests {
  static let page: UInt64 = 4096

  /// Runs `body` as a client, then checks that nothing of it is left and that an ordinary client finds its device.
  func against(
    _ reason: String?, negotiated: Bool = true, _ body: (RawClient) throws -> Void
  ) throws {
    let server = try ServedProcess()
    try ordinary(server)
    let descriptors = server.descriptorCount
    let mappings = server.mappingCount
    do {
      let client = try server.connect()
      if negotiated { try client.negotiate() }
      try body(client)
    }
    try ordinary(server)
    #expect(server.isAlive)
    #expect(server.descriptorCount == descriptors)
    #expect(server.mappingCount <= mappings + 4)
    let (report, code) = server.end()
    #expect(code == 0)
    if let reason { #expect(report.contains("\"\(reason)\":"), "\(report)") }
    #expect(access(server.path, F_OK) != 0)
  }

  func ordinary(_ server: ServedProcess) throws {
    let client = try server.connect()
    try client.negotiate()
    var request = ByteWriter()
    RegionAccessMessage(offset: 0, region: RegionIndex.configuration, count: 4).write(to: &request)
    let answer = try client.ask(.regionRead, request.bytes)
    #expect(answer.errno == 0)
    #expect(Array(answer.payload.dropFirst(16)) == [0xf4, 0x1a, 0x41, 0x10])
    let all = DMAUnmapMessage(flags: DMAUnmapMessage.all, address: 0, size: 0)
    #expect(try client.ask(.dmaUnmap, all.bytes).errno == 0)
    shutdown(client.stream.descriptor, Int32(SHUT_WR))
    #expect(client.isClosedByServer)
  }

  @Test(
    arguments: [
      (0, 0), (15, 0), (UInt32(MessageLimits.messageByteCount) + 1, 0), (.max, 0), (16, 2),
      (16, 15),
    ] as [(UInt32, UInt32)])
  func aHeaderThatLiesEndsTheConnection(size: UInt32, flags: UInt32) throws {
    try against("malformed_message") { (client) throws in
      client.send(client.bytes(4, size: size, flags: flags))
      #expect(client.isClosedByServer)
    }
  }

  @Test func aReplyWhereACommandIsDueEndsTheConnection() throws {
    try against("unexpected_reply") { (client) throws in
      client.send(client.bytes(11, [UInt8](repeating: 0, count: 16), flags: 1))
      #expect(client.isClosedByServer)
    }
  }

  @Test func unknownCommandsGetAnErrno() throws {
    try against("unknown_command") { (client) throws in
      for command in [0, 6, 11, 12, 14, 16, 17, 18, 19, 0xffff] as [UInt16] {
        client.send(client.bytes(command, [UInt8](repeating: 0xff, count: 64)))
        #expect(try client.reply().errno != 0)
      }
    }
  }

  @Test func aMessageMayComeByteByByteAndTwoAtOnce() throws {
    try against(nil) { (client) throws in
      let info = client.bytes(4, DeviceInfoMessage().bytes)
      for byte in info { client.send([byte]) }
      #expect(DeviceInfoMessage(try client.reply().payload)?.regions == 9)
      client.send(info + info)
      #expect(try client.reply().errno == 0)
      #expect(try client.reply().errno == 0)
    }
  }

  @Test func aClientThatStopsInTheMiddleIsForgotten() throws {
    for length in [1, 15, 16, 20] {
      try against(nil) { (client) throws in
        client.send(Array(client.bytes(4, DeviceInfoMessage().bytes).prefix(length)))
      }
    }
  }

  @Test func commandsComeAfterTheVersionAndTheVersionOnce() throws {
    try against("out_of_order", negotiated: false) { (client) throws in
      client.send(client.bytes(4, DeviceInfoMessage().bytes))
      #expect(client.isClosedByServer)
    }
    try against("out_of_order") { (client) throws in
      client.send(client.bytes(1, [0, 0, 1, 0]))
      #expect(client.isClosedByServer)
    }
  }

  @Test(arguments: [
    "{", "\"", "[]", "{\"capabilities\":\"23\"}", "{\"capabilities\":{\"max_msg_fds\":\"x\"}}",
    "{\"capabilities\":{\"max_msg_fds\":-1}}", "{\"capabilities\":{\"max_msg_fds\":1e9}}",
    "{\"capabilities\":{\"max_msg_fds\":1,\"max_msg_fds\":2}}", "{\"capabilities\":{},}",
    "{\"capabilities\":{\"migration\":3}}", String(repeating: "[", count: 9000),
    "{\"x\":\"" + String(repeating: "y", count: 20000) + "\"}",
    "{\"capabilities\":{\"max_data_xfer_size\":99999999999999999999}}",
  ])
  func versionDataThatIsNoneIsRefused(json: String) throws {
    try against("bad_version", negotiated: false) { (client) throws in
      client.send(client.bytes(1, [0, 0, 1, 0] + Array(json.utf8) + [0]))
      #expect(try client.reply().errno == EINVAL)
      #expect(client.isClosedByServer)
    }
  }

  @Test func anotherMajorVersionAndDataWithoutEndAreRefused() throws {
    for payload in [[1, 0, 0, 0], [0, 0, 1], [0, 0, 1, 0, 0x7b, 0x7d]] as [[UInt8]] {
      try against("bad_version", negotiated: false) { (client) throws in
        client.send(client.bytes(1, payload))
        #expect(client.isClosedByServer)
      }
    }
  }

  @Test func mapsThatMakeNoSenseAreRefused() throws {
    try against("bad_dma_map") { (client) throws in
      let file = MemoryFile(byteCount: 1 << 20)
      func map(
        _ address: UInt64, _ size: UInt64, offset: UInt64 = 0, flags: UInt32 = 3,
        _ descriptors: [Int32]
      ) throws -> Int32 {
        try client.ask(
          .dmaMap, DMAMapMessage(flags: flags, offset: offset, address: address, size: size).bytes,
          descriptors: descriptors
        ).errno
      }
      let page = Self.page
      let one = [file.descriptor]
      #expect(try map(page, 0, one) == EINVAL)
      #expect(try map(0 &- page, 2 * page, one) == EINVAL)
      #expect(try map(0 &- page, 2 * page, []) == EINVAL)
      #expect(try map(1, page, one) == EINVAL)
      #expect(try map(page, 100, one) == EINVAL)
      #expect(try map(page, page, offset: 1, one) == EINVAL)
      #expect(try map(page, 2 << 20, one) == EINVAL)
      #expect(try map(page, page, offset: 1 << 20, one) == EINVAL)
      #expect(try map(page, page, offset: 0 &- page, one) == EINVAL)
      #expect(try map(page, page, flags: 0, one) == EINVAL)
      #expect(try map(page, page, flags: 7, one) == EINVAL)
      #expect(try map(page, page, one + one) == EINVAL)
      let pipe = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      let folder = open("/tmp", O_RDONLY)
      let null = open("/dev/null", O_RDWR)
      defer { for descriptor in [pipe, folder, null] { close(descriptor) } }
      for wrong in [pipe, folder, null] { #expect(try map(page, page, [wrong]) == EINVAL) }
      #expect(try map(page, 1 << 20, one) == 0)
      #expect(try map(page, 1 << 20, one) == EEXIST)
      #expect(try map(2 * page, page, []) == EEXIST)
      #expect(try map(0, 2 * page, []) == EEXIST)
      // The last page of the address space is one like any other.
      #expect(try map(0 &- page, page, []) == 0)
      func unmap(_ address: UInt64, _ size: UInt64, flags: UInt32 = 0) throws -> Int32 {
        try client.ask(
          .dmaUnmap, DMAUnmapMessage(flags: flags, address: address, size: size).bytes
        ).errno
      }
      #expect(try unmap(1 << 40, page) == ENOENT)
      #expect(try unmap(page, page) == EINVAL)
      #expect(try unmap(page, 0) == EINVAL)
      #expect(try unmap(page, 1 << 20, flags: DMAUnmapMessage.dirtyBitmap) == EINVAL)
      #expect(try unmap(page, page, flags: DMAUnmapMessage.all) == EINVAL)
      #expect(try unmap(page, 1 << 20) == 0)
      #expect(try unmap(page, 1 << 20) == ENOENT)
      #expect(try unmap(0, 0, flags: DMAUnmapMessage.all) == 0)
      #expect(try unmap(0 &- page, page) == ENOENT)
      #expect(try client.ask(.dmaMap, [1, 2, 3]).errno == EINVAL)
      #expect(try client.ask(.dmaUnmap, [1, 2, 3]).errno == EINVAL)
    }
  }

  @Test func aThousandMapsAreTakenAndGoWithTheirClient() throws {
    try against(nil) { (client) throws in
      let file = MemoryFile(byteCount: 4096)
      for index in 1...1000 as ClosedRange<UInt64> {
        let map = DMAMapMessage(flags: 3, offset: 0, address: index << 20, size: Self.page)
        #expect(try client.ask(.dmaMap, map.bytes, descriptors: [file.descriptor]).errno == 0)
      }
    }
  }

  @Test func descriptorsWhereNoneAreDueAreClosed() throws {
    try against("bad_descriptors") { (client) throws in
      let file = MemoryFile(byteCount: 4096)
      let many = [Int32](repeating: file.descriptor, count: 16)
      #expect(
        try client.ask(.deviceInfo, DeviceInfoMessage().bytes, descriptors: many).errno == EINVAL)
      // On the second byte, and beyond what is taken.
      let bytes = client.bytes(4, DeviceInfoMessage().bytes)
      client.send([bytes[0]])
      for byte in bytes.dropFirst() { client.send([byte], descriptors: many) }
      #expect(try client.reply().errno == EINVAL)
      // With a message that never gets whole.
      client.send([1, 2, 3], descriptors: many)
    }
  }

  @Test func regionAccessesOutsideAreRefused() throws {
    try against("bad_region_access") { (client) throws in
      func access(
        _ command: VFIOUserCommand, _ offset: UInt64, _ region: UInt32, _ count: UInt32,
        _ data: [UInt8] = []
      ) throws -> Int32 {
        var writer = ByteWriter()
        RegionAccessMessage(offset: offset, region: region, count: count).write(to: &writer)
        writer.write(data)
        return try client.ask(command, writer.bytes).errno
      }
      for (offset, region, count) in [
        (0, 7, 0), (256, 7, 1), (253, 7, 4), (.max, 7, 4), (0x3fff, 4, 2), (0, 0, 4), (0, 6, 4),
        (0, 8, 1), (0, 9, 4), (0, .max, 4), (0, 7, .max), (0, 4, 1 << 21), (0, 7, 4096),
      ] as [(UInt64, UInt32, UInt32)] {
        #expect(try access(.regionRead, offset, region, count) == EINVAL)
      }
      #expect(try access(.regionWrite, 4, 7, 4, [0, 0]) == EINVAL)
      #expect(try access(.regionWrite, 4, 7, 2, [0, 0, 0]) == EINVAL)
      #expect(try access(.regionRead, 0, 7, 3) == 0)
      #expect(try access(.regionRead, 1, 7, 255) == 0)
      #expect(try access(.regionRead, 0, 4, 0x4000) == 0)
      var many = ByteWriter()
      many.write64(.max)
      #expect(try client.ask(.regionWriteMultiple, many.bytes).errno == EINVAL)
      for payload in [[], [1], [UInt8](repeating: 0xff, count: 15)] as [[UInt8]] {
        for command in [.regionRead, .regionWrite, .regionInfo, .deviceInfo, .interruptInfo]
          as [VFIOUserCommand]
        { #expect(try client.ask(command, payload).errno == EINVAL) }
      }
    }
  }

  @Test func interruptSetsThatMakeNoSenseAreRefused() throws {
    try against("bad_interrupts") { (client) throws in
      let file = MemoryFile(byteCount: 4096)
      let event = eventfd(0, 0)
      let other = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      defer {
        close(event)
        close(other)
      }
      func set(
        _ flags: UInt32, _ index: UInt32, _ start: UInt32, _ count: UInt32,
        _ descriptors: [Int32] = [], extra: [UInt8] = []
      ) throws -> Int32 {
        var writer = ByteWriter()
        for word in [20 + UInt32(extra.count), flags, index, start, count] { writer.write32(word) }
        writer.write(extra)
        return try client.ask(.setInterrupts, writer.bytes, descriptors: descriptors).errno
      }
      let none: UInt32 = 1
      let booleans: UInt32 = 2
      let eventfds: UInt32 = 4
      let mask: UInt32 = 8
      let trigger: UInt32 = 32
      for wrong in [file.descriptor, other] {
        #expect(try set(eventfds | trigger, 2, 0, 1, [wrong]) == EINVAL)
      }
      #expect(try set(eventfds | trigger, 2, 0, 2, [event]) == EINVAL)
      #expect(try set(eventfds | trigger, 2, 0, 1, [event, event]) == EINVAL)
      #expect(try set(eventfds | trigger, 2, 4, 1, [event]) == EINVAL)
      #expect(try set(eventfds | trigger, 2, .max, 2, [event]) == EINVAL)
      #expect(try set(eventfds | trigger, 2, 1, .max, [event]) == EINVAL)
      #expect(try set(eventfds | trigger, 9, 0, 1, [event]) == EINVAL)
      #expect(try set(eventfds | trigger, 1, 0, 1, [event]) == EINVAL)
      #expect(try set(none | booleans | trigger, 2, 0, 1) == EINVAL)
      #expect(try set(none | mask | trigger, 2, 0, 1) == EINVAL)
      #expect(try set(none, 2, 0, 1) == EINVAL)
      #expect(try set(0x1000 | none | trigger, 2, 0, 1) == EINVAL)
      #expect(try set(booleans | trigger, 2, 0, 4, extra: [1]) == EINVAL)
      #expect(try set(booleans | trigger, 2, 0, .max, extra: [1]) == EINVAL)
      #expect(try set(none | mask, 2, 0, 0) == EINVAL)
      #expect(try set(none | trigger, 2, 1, 0) == EINVAL)
      // An eventfd without a descriptor takes the vector's away, and a full one blocks nobody.
      #expect(try set(eventfds | trigger, 2, 0, 1, [event]) == 0)
      #expect(try set(eventfds | trigger, 2, 0, 1) == 0)
      #expect(try set(eventfds | trigger, 2, 0, 1, [event]) == 0)
      var full: UInt64 = .max - 1
      #expect(write(event, &full, 8) == 8)
      #expect(try set(none | trigger, 2, 0, 1) == 0)
      #expect(try client.ask(.deviceInfo, DeviceInfoMessage().bytes).errno == 0)
    }
  }

  @Test func aClientThatConnectsAndSaysNothingMakesRoom() throws {
    for bytes in [[], [1, 0]] as [[UInt8]] {
      try against("silent_client", negotiated: false) { (client) throws in
        if !bytes.isEmpty { client.send(bytes) }
        #expect(client.isClosedByServer)
      }
    }
  }

  @Test func aClientThatDoesNotReadItsRepliesIsDismissed() throws {
    try against("blocked_client") { (client) throws in
      var request = ByteWriter()
      RegionAccessMessage(offset: 0, region: 4, count: 0x4000).write(to: &request)
      // The server stops reading when it cannot write: the socket fills up and then breaks.
      for _ in 0..<20000 {
        let bytes = client.bytes(9, request.bytes)
        let sent = bytes.withUnsafeBytes {
          linux_send_descriptors(
            client.stream.descriptor, $0.baseAddress!, $0.count, nil, 0, Int32(MSG_DONTWAIT))
        }
        if sent < 0 { break }
      }
      usleep(1_500_000)
      #expect(client.isClosedByServer)
    }
  }

  @Test func manyClientsThatComeAndGoLeaveNothing() throws {
    try against(nil) { (client) throws in
      shutdown(client.stream.descriptor, Int32(SHUT_RDWR))
      for _ in 0..<500 {
        if let other = try? RawClient(pathOf(client)) { withExtendedLifetime(other) {} }
      }
    }
  }

  private func pathOf(_ client: RawClient) -> String {
    var address = sockaddr_un()
    var size = socklen_t(MemoryLayout<sockaddr_un>.size)
    _ = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        getpeername(client.stream.descriptor, $0, &size)
      }
    }
    return withUnsafeBytes(of: &address.sun_path) {
      String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
  }
}
