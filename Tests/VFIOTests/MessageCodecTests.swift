import CLinux
import Glibc
import Testing
import VFIOUserMessages

/// Bytes written by hand after the protocol's tables (vfio-user 0.9.2), so that a mistake of the writer is not undone
/// by the same mistake of the reader.
@Suite struct MessageCodecTests {
  @Test func headerAndPayloadsLieAsTheProtocolSays() throws {
    var writer = ByteWriter()
    MessageHeader(
      identifier: 0x1234, command: 9, size: 0x20, flags: [.reply, .error], errno: 22
    ).write(to: &writer)
    #expect(writer.bytes == [0x34, 0x12, 9, 0, 0x20, 0, 0, 0, 0x21, 0, 0, 0, 22, 0, 0, 0])
    let map = DMAMapMessage(flags: 3, offset: 0x1000, address: 0x20_0000, size: 0x3000)
    #expect(
      map.bytes == [
        32, 0, 0, 0, 3, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0x30, 0,
        0, 0, 0, 0, 0,
      ])
    #expect(DMAMapMessage(map.bytes) == map)
    let unmap = DMAUnmapMessage(flags: 2, address: 1, size: 2)
    #expect(
      unmap.bytes == [24, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])
    #expect(DMAUnmapMessage(unmap.bytes + [UInt8](repeating: 1, count: 24)) == unmap)
    let set = SetInterruptsMessage(
      data: .boolean, action: .unmask, index: 2, start: 1, count: 2, booleans: [true, false])
    #expect(
      set.bytes == [22, 0, 0, 0, 18, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0])
    #expect(SetInterruptsMessage(set.bytes) == set)
  }

  @Test func aShortPayloadIsNone() {
    for count in 0..<32 {
      let bytes = [UInt8](repeating: 0xff, count: count)
      #expect(DMAMapMessage(bytes) == nil)
      #expect(DMAUnmapMessage(bytes) == nil || count >= 24)
      #expect(DeviceInfoMessage(bytes) == nil || count >= 16)
      #expect(InterruptInfoMessage(bytes) == nil || count >= 16)
      #expect(SetInterruptsMessage(bytes) == nil)
      #expect(throws: MessageError.self) { try RegionInfoMessage(bytes) }
    }
  }

  /// The list as a server lays it out, with a capability of another kind before the areas.
  @Test func mappableAreasAreFoundBehindOtherCapabilities() throws {
    var writer = ByteWriter()
    for word in [96, 15, 1, 32] as [UInt32] { writer.write32(word) }
    for word in [0x8000, 0x10000] as [UInt64] { writer.write64(word) }
    for word in [0x0001_0002, 48, 3, 1, 0x0001_0001, 0, 2, 0] as [UInt32] { writer.write32(word) }
    for word in [0x1000, 0x1000, 0x4000, 0x2000] as [UInt64] { writer.write64(word) }
    let info = try RegionInfoMessage(writer.bytes)
    #expect(info.size == 0x8000 && info.offset == 0x10000)
    #expect(
      info.sparseAreas == [
        .init(offset: 0x1000, size: 0x1000), .init(offset: 0x4000, size: 0x2000),
      ]
    )
    #expect(try RegionInfoMessage(info.reply(within: 1024)).sparseAreas == info.sparseAreas)
    let short = try RegionInfoMessage(info.reply(within: 32))
    #expect(short.sparseAreas == [] && short.argumentSize == 80)
  }

  @Test(
    arguments: [
      [32, 0x0001_0001, 32, 1, 0], [1 << 31, 0, 0, 0, 0], [31, 0, 0, 0, 0],
      [32, 0x0001_0001, 0, .max, 0], [32, 0x0001_0002, 16, 0, 0], [50, 0, 0, 0, 0],
    ] as [[UInt32]])
  func aListThatLiesIsRefused(words: [UInt32]) {
    var writer = ByteWriter()
    for word in [48, 8, 0, words[0], 0, 0, 0, 0] + words.dropFirst() { writer.write32(word) }
    #expect(throws: MessageError.self) { try RegionInfoMessage(writer.bytes) }
  }

  @Test func versionDataIsReadAsOthersWriteIt() throws {
    // libvfio-user's server and QEMU's client.
    let server =
      "{ \"capabilities\": { \"max_msg_fds\": 8, \"max_data_xfer_size\": 1048576, \"migration\": { \"pgsize\": 4096 }, \"twin_socket\": { \"supported\": false } } }"
    let message = try VersionMessage([0, 0, 1, 0] + Array(server.utf8) + [0])
    #expect(message.minor == 1)
    #expect(message.capabilities.maximumDescriptors == 8)
    #expect(message.capabilities.maximumDataByteCount == 1 << 20)
    let client =
      "{\"capabilities\": {\"max_dma_maps\": 65535, \"max_msg_fds\": 8, \"write_multiple\": true, \"pgsizes\": 4096, \"max_data_xfer_size\": 1048576}}"
    let other = try VersionMessage([0, 0, 0, 0] + Array(client.utf8) + [0])
    #expect(other.capabilities.writeMultiple == true && other.capabilities.pageSizes == 4096)
    #expect(try VersionMessage([0, 0, 1, 0]).capabilities == .init())
    #expect(try VersionMessage([0, 0, 1, 0, 0x7b, 0x7d, 0]).capabilities == .init())
    #expect(try VersionMessage(other.bytes) == other)
  }

  @Test(arguments: [
    "", " ", "{", "}", "nul", "01", "1.", "-", "1e", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"",
    "\"\u{1}\"", "[1,]", "{\"a\"}", "{\"a\":}", "{a:1}", "{\"a\":1,\"a\":1}", "1 2", "[1 2]", "tru",
    "[[[[[[[[[[1]]]]]]]]]]",
  ])
  func whatIsNoJSONIsRefused(text: String) {
    #expect(JSONReader.parse(Array(text.utf8)[...]) == nil)
  }

  @Test func whatIsJSONIsRead() {
    func parse(_ text: String) -> JSONValue? { JSONReader.parse(Array(text.utf8)[...]) }
    #expect(
      parse(" [ 1 , -2.5e+3 , \"\\u0041\\n\" , true , null , {} ] ")
        == .array([
          .integer(1), .otherNumber, .string("A\n"), .boolean(true), .null, .object([]),
        ]))
    #expect(parse("9223372036854775807") == .integer(.max))
    #expect(parse("9223372036854775808") == .otherNumber)
    #expect(JSONReader.parse([0x22, 0xff, 0x22]) == nil)
  }

  /// 20,000 mutations of good messages: each is read or refused.
  @Test func mutatedMessagesAreReadOrRefused() {
    var random = SystemRandomNumberGenerator()
    let version = VersionMessage(
      major: 0, minor: 1, capabilities: .init(maximumDescriptors: 8, maximumDataByteCount: 1 << 20))
    let region = RegionInfoMessage(
      flags: 15, index: 2, size: 1 << 20, sparseAreas: [.init(offset: 0, size: 4096)])
    let set = SetInterruptsMessage(
      data: .boolean, action: .mask, index: 2, start: 0, count: 3, booleans: [true, true, false])
    for seed in [version.bytes, region.reply(within: 1024), set.bytes] {
      for _ in 0..<7000 {
        var bytes = seed
        for _ in 0..<Int.random(in: 1...4, using: &random) where !bytes.isEmpty {
          let position = Int.random(in: 0..<bytes.count, using: &random)
          switch Int.random(in: 0..<3, using: &random) {
          case 0: bytes[position] = .random(in: 0 ... .max, using: &random)
          case 1: bytes.remove(at: position)
          default: bytes.insert(.random(in: 0 ... .max, using: &random), at: position)
          }
        }
        _ = try? VersionMessage(bytes)
        _ = try? RegionInfoMessage(bytes)
        if let set = SetInterruptsMessage(bytes), set.data == .boolean {
          #expect(set.booleans.count == Int(set.count))
        }
      }
    }
  }
}
