import CLinux
import Glibc
import Testing
import VFIOUserMessages

@testable import VhostUserMessages

@Suite struct CodecTests {
  private func header(_ words: [UInt32]) -> [UInt8] {
    words.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
  }

  @Test func aHeaderIsThreeWords() throws {
    var writer = ByteWriter()
    VhostUserHeader(request: 5, needsReply: true, size: 40).write(to: &writer)
    #expect(writer.bytes == header([5, 1 | 8, 40]))
    let read = try VhostUserHeader(header([11, 1 | 4, 8]))
    #expect(read == VhostUserHeader(request: 11, isReply: true, size: 8))
  }

  @Test(
    arguments: [
      [1, 0, 8], [1, 2, 8], [1, 3, 8], [1, 1 | 16, 8], [1, 1, 4097], [1, 1, .max],
    ] as [[UInt32]])
  func aHeaderThatBreaksTheProtocolIsRefused(words: [UInt32]) {
    #expect(throws: VhostUserError.self) { try VhostUserHeader(header(words)) }
  }

  @Test func payloadsComeBackAsTheyWere() {
    let state = VringState(ring: 3, value: 0x8000_8000)
    #expect(VringState(state.bytes) == state)
    let addresses = VringAddresses(ring: 1, descriptors: 0x1000, used: 0x3000, available: 0x2000)
    #expect(VringAddresses(addresses.bytes) == addresses)
    // The order on the wire: ring, flags, descriptors, used, available, log.
    #expect(addresses.bytes[8..<12] == [0, 0x10, 0, 0] && addresses.bytes[17] == 0x30)
    let table = VhostUserMemoryTable(regions: [
      VhostUserRegion(guestAddress: 1 << 32, byteCount: 4096, userAddress: 2 << 32, offset: 8192),
      VhostUserRegion(guestAddress: 0, byteCount: 1, userAddress: 0, offset: 0),
    ])
    #expect(VhostUserMemoryTable(table.bytes) == table && table.bytes.count == 72)
    let configuration = VhostUserConfiguration(offset: 6, data: [1, 2, 3])
    #expect(VhostUserConfiguration(configuration.bytes) == configuration)
    #expect(VhostUserNumber.ring(7, hasDescriptor: false).value == 0x107)
  }

  @Test func payloadsOfAnotherSizeAreNone() {
    for count in [0, 7, 9, 16] {
      let bytes = [UInt8](repeating: 0, count: count)
      #expect(VringState(bytes) == nil && VhostUserNumber(bytes) == nil)
    }
    #expect(VringAddresses([UInt8](repeating: 0, count: 39)) == nil)
    // Nine regions; one region too few and one too many for the count.
    #expect(VhostUserMemoryTable(header([9, 0]) + [UInt8](repeating: 0, count: 288)) == nil)
    #expect(VhostUserMemoryTable(header([2, 0]) + [UInt8](repeating: 0, count: 32)) == nil)
    #expect(VhostUserMemoryTable(header([1, 0]) + [UInt8](repeating: 0, count: 64)) == nil)
    // More than it has, and more than there can be.
    #expect(VhostUserConfiguration(header([0, 4, 0]) + [1, 2, 3]) == nil)
    #expect(VhostUserConfiguration(header([0, 257, 0]) + [UInt8](repeating: 0, count: 257)) == nil)
  }

  /// Whatever pieces a message comes in, its descriptors belong to it and to no other.
  @Test func messagesInPiecesKeepTheirDescriptors() throws {
    var ends: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends)
    let stream = VhostUserStream(descriptor: ends[0], closes: true)
    let event = eventfd(0, 0)
    let first = header([12, 1, 8]) + VhostUserNumber(0).bytes
    let second = header([1, 1, 0])
    for (index, byte) in (first + second).enumerated() {
      var byte = byte
      let given = index == 0 ? [event] : []
      #expect(linux_send_descriptors(ends[1], &byte, 1, given, Int32(given.count), 0) == 1)
      guard let message = try stream.poll() else { continue }
      if index == first.count - 1 {
        #expect(message.request == .setVringKick && message.descriptors.count == 1)
      } else {
        #expect(index == first.count + second.count - 1)
        #expect(message.request == .getFeatures && message.descriptors.count == 0)
      }
    }
    close(event)
    shutdown(ends[1], Int32(SHUT_RDWR))
    close(ends[1])
    #expect(throws: VhostUserError.closed) { try stream.poll() == nil }
  }
}
