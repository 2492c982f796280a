import CLinux
import Glibc
import Testing
import VFIOUserMessages
import VhostUserServer
import VirtioNetDevice
import Wire

@testable import VhostUserMessages

/// By when whatever is to come has come, on any machine.
private var deadline: UInt64 { monotonic_nanoseconds() + 30_000_000_000 }

/// Whatever a front-end says, the back-end counts it, ends that connection or refuses, and serves the next one.
@Suite(.serialized) struct HostileFrontEndTests {
  /// A front-end that says whatever it likes.
  final class Client {
    let stream: VhostUserStream

    init(_ path: String) {
      let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
      _ = linux_connect_unix(descriptor, path)
      stream = VhostUserStream(descriptor: descriptor, closes: true)
    }

    func say(_ request: UInt32, _ payload: [UInt8] = [], _ descriptors: [Int32] = []) throws {
      try stream.send(
        VhostUserHeader(request: request, needsReply: true, size: payload.count), payload,
        descriptors: descriptors, deadline: deadline)
    }

    /// The answer's payload; nil where the back-end has hung up.
    func ask(
      _ request: VhostUserRequest, _ payload: [UInt8] = [], _ descriptors: [Int32] = []
    ) -> [UInt8]? {
      do {
        try say(request.rawValue, payload, descriptors)
        return try stream.receive(deadline: deadline).payload
      } catch {
        return nil
      }
    }

    /// Whether the back-end did it.
    func does(
      _ request: VhostUserRequest, _ payload: [UInt8] = [], _ descriptors: [Int32] = []
    ) -> Bool {
      ask(request, payload, descriptors) == VhostUserNumber(0).bytes
    }

    /// Up to where all requests are acknowledged.
    func negotiate() throws {
      try say(VhostUserRequest.setOwner.rawValue)
      try say(VhostUserRequest.setProtocolFeatures.rawValue, VhostUserNumber(1 << 3).bytes)
      // Acknowledged already, as REPLY_ACK holds from then on.
      _ = try stream.receive(deadline: deadline)
      #expect(
        does(.setFeatures, VhostUserNumber(1 << 32 | VhostFeature.protocolFeatures).bytes))
    }
  }

  private func served(_ body: (String) throws -> Void) rethrows -> VhostUserServer {
    let device = VirtioNetDevice(wire: NullWire(), options: ServedBackEnd.options)
    let served = ServedBackEnd(device)
    try body(served.path)
    // The next one is served as if nothing had been.
    let next = Client(served.path)
    #expect(VhostUserNumber(next.ask(.getFeatures) ?? [])?.value ?? 0 > 1 << 32)
    served.end()
    return served.server
  }

  private func memory(_ byteCount: Int) -> Int32 {
    let descriptor = linux_memfd_create("front-end", LINUX_MFD_CLOEXEC)
    ftruncate(descriptor, byteCount)
    return descriptor
  }

  private func table(_ regions: [(UInt64, UInt64, UInt64, UInt64)]) -> [UInt8] {
    VhostUserMemoryTable(
      regions: regions.map {
        VhostUserRegion(guestAddress: $0.0, byteCount: $0.1, userAddress: $0.2, offset: $0.3)
      }
    ).bytes
  }

  @Test func badRegionsAreRefused() throws {
    let file = memory(1 << 20)
    defer { close(file) }
    var pipe: [Int32] = [-1, -1]
    Glibc.pipe(&pipe)
    let server = try served { path in
      let client = Client(path)
      try client.negotiate()
      let good: (UInt64, UInt64, UInt64, UInt64) = (0, 4096, 0x7000_0000, 0)
      let bad: [([(UInt64, UInt64, UInt64, UInt64)], [Int32])] = [
        ([(0, 2 << 20, 0x7000_0000, 0)], [file]),  // More than the file has.
        ([(0, 4096, 0x7000_0000, 1 << 20)], [file]),  // Behind its end.
        ([(0, 4096, 0x7000_0000, .max - 4095)], [file]),  // An offset that wraps.
        ([(.max - 4095, 8192, 0x7000_0000, 0)], [file]),  // Guest addresses that wrap.
        ([(0, 4096, .max - 100, 0)], [file]),  // User addresses that wrap.
        ([(0, 0, 0x7000_0000, 0)], [file]),  // Empty.
        ([(1, 4096, 0x7000_0000, 0)], [file]),  // Not on a page.
        ([good, (0, 8192, 0x8000_0000, 0)], [file, file]),  // Overlapping.
        ([good], [pipe[0]]),  // No memory at all.
      ]
      for (regions, descriptors) in bad {
        #expect(!client.does(.setMemoryTable, table(regions), descriptors))
      }
      #expect(client.does(.setMemoryTable, table([good]), [file]))
      #expect(!client.does(.setMemoryTable, table([good]), []))
      #expect(!client.does(.setMemoryTable, table([good]), [file, file]))
      #expect(!client.does(.setMemoryTable, [9, 0, 0, 0, 0, 0, 0, 0], []))
    }
    close(pipe[0])
    close(pipe[1])
    #expect(server.refusals[.badMemory] == 9)
    #expect(server.refusals[.badDescriptors] == 2)
    #expect(server.refusals[.badPayload] == 1)
  }

  @Test func badRingsAreRefused() throws {
    let file = memory(1 << 20)
    let event = eventfd(0, 0)
    defer {
      close(file)
      close(event)
    }
    let server = try served { path in
      let client = Client(path)
      try client.negotiate()
      #expect(client.does(.setMemoryTable, table([(0, 1 << 20, 0x7000_0000, 0)]), [file]))
      for size: UInt32 in [0, 3, 2048, .max] {
        #expect(!client.does(.setVringSize, VringState(ring: 0, value: size).bytes))
      }
      #expect(!client.does(.setVringSize, VringState(ring: 2, value: 256).bytes))
      #expect(!client.does(.setVringBase, VringState(ring: 0, value: 0x1_0000).bytes))
      #expect(!client.does(.setVringEnable, VringState(ring: 0, value: 2).bytes))
      #expect(!client.does(.setVringEnable, VringState(ring: 9, value: 1).bytes))
      #expect(!client.does(.setVringKick, VhostUserNumber(0).bytes, []))
      #expect(!client.does(.setVringKick, VhostUserNumber(0x100).bytes, [event]))
      #expect(!client.does(.setVringCall, VhostUserNumber(0).bytes, [event, event]))
      #expect(!client.does(.setVringCall, VhostUserNumber(0x200).bytes, [event]))
      #expect(client.does(.setVringSize, VringState(ring: 0, value: 256).bytes))
      #expect(client.does(.setVringKick, VhostUserNumber(0).bytes, [event]))
      #expect(client.does(.setVringEnable, VringState(ring: 0, value: 1).bytes))
      // The last byte of the used ring outside; before all regions; misaligned.
      let used = 0x7000_0000 + (1 << 20) - UInt64(6 + 8 * 256)
      for (descriptors, available, used) in [
        (0x7000_0000, 0x7000_2000, used + 4), (0x1000, 0x7000_2000, 0x7000_4000),
        (0x7000_0008, 0x7000_2000, 0x7000_4000), (UInt64.max - 15, 0x7000_2000, 0x7000_4000),
      ] as [(UInt64, UInt64, UInt64)] {
        let addresses = VringAddresses(
          ring: 0, descriptors: descriptors, used: used, available: available)
        #expect(!client.does(.setVringAddresses, addresses.bytes))
      }
    }
    #expect(server.refusals[.badRing] == 7)
    #expect(server.refusals[.badRingAddress] == 4)
    #expect(server.refusals[.badDescriptors] == 3)
  }

  @Test func whatIsNotOfferedIsRefused() throws {
    let server = try served { path in
      let client = Client(path)
      try client.negotiate()
      #expect(!client.does(.setFeatures, VhostUserNumber(1 << 32 | 1 << 17).bytes))
      #expect(!client.does(.setFeatures, VhostUserNumber(1 << 5).bytes))
      #expect(!client.does(.setProtocolFeatures, VhostUserNumber(1 << 63).bytes))
      try client.say(99)
      let answer = try client.stream.receive(deadline: deadline)
      #expect(answer.payload == VhostUserNumber(1).bytes)
    }
    #expect(server.refusals[.badFeatures] == 3 && server.refusals[.unknownRequest] == 1)
  }

  @Test func aStreamThatBreaksTheProtocolEnds() throws {
    let server = served { path in
      let words: [[UInt8]] = [
        [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        [1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
      ]
      for bytes in words {
        let client = Client(path)
        #expect(send(client.stream.descriptor, bytes, 12, 0) == 12)
        #expect(throws: VhostUserError.closed) {
          try client.stream.receive(deadline: deadline).payload
            .isEmpty
        }
      }
      // Without acknowledgements a request that cannot be done ends the connection.
      let client = Client(path)
      #expect(client.ask(.setVringSize, VringState(ring: 77, value: 1).bytes) == nil)
    }
    #expect(server.refusals[.malformedMessage] == 3 && server.refusals[.badRing] == 1)
  }

  @Test func memoryThatShrinksUnderRunningRingsEndsTheFrontEndOnly() throws {
    let file = memory(1 << 20)
    let event = eventfd(0, 0)
    defer {
      close(file)
      close(event)
    }
    let server = try served { path in
      let client = Client(path)
      try client.negotiate()
      #expect(client.does(.setMemoryTable, table([(0, 1 << 20, 0x7000_0000, 0)]), [file]))
      let addresses = VringAddresses(
        ring: 1, descriptors: 0x7000_0000, used: 0x7000_4000, available: 0x7000_2000)
      #expect(client.does(.setVringSize, VringState(ring: 1, value: 256).bytes))
      #expect(client.does(.setVringAddresses, addresses.bytes))
      #expect(client.does(.setVringKick, VhostUserNumber(1).bytes, [event]))
      #expect(client.does(.setVringEnable, VringState(ring: 1, value: 1).bytes))
      ftruncate(file, 0)
      var one: UInt64 = 1
      _ = write(event, &one, 8)
      // The back-end lives; the connection ends when it looks at it next.
      var isGone = false
      for _ in 0..<3000 where !isGone {
        usleep(10_000)
        isGone = client.ask(.getFeatures) == nil
      }
      #expect(isGone)
    }
    #expect(server.refusals[.truncatedMemory] == 1)
  }

  /// Rings that run are stopped where memory is told anew, and start where they lie in it then.
  @Test func memoryThatIsReplacedUnderRunningRingsStopsThem() throws {
    let files = [memory(1 << 20), memory(1 << 20)]
    let event = eventfd(0, 0)
    defer { for descriptor in files + [event] { close(descriptor) } }
    let server = try served { path in
      let client = Client(path)
      try client.negotiate()
      let whole = table([(0, 1 << 20, 0x7000_0000, 0)])
      #expect(client.does(.setMemoryTable, whole, [files[0]]))
      #expect(client.does(.setVringSize, VringState(ring: 1, value: 256).bytes))
      let addresses = VringAddresses(
        ring: 1, descriptors: 0x7000_0000, used: 0x7000_4000, available: 0x7000_2000)
      #expect(client.does(.setVringAddresses, addresses.bytes))
      #expect(client.does(.setVringKick, VhostUserNumber(1).bytes, [event]))
      #expect(client.does(.setVringEnable, VringState(ring: 1, value: 1).bytes))
      var one: UInt64 = 1
      for round in 0..<20 {
        #expect(client.does(.setMemoryTable, whole, [files[round % 2]]))
        _ = write(event, &one, 8)
      }
      // Too small for the ring, elsewhere, none at all: whatever runs is stopped, and the addresses do not fit.
      #expect(
        !client.does(.setMemoryTable, table([(0, 4096, 0x7000_0000, 0)]), [files[0]]))
      #expect(client.does(.setMemoryTable, table([]), []))
      _ = write(event, &one, 8)
      #expect(client.does(.setMemoryTable, whole, [files[0]]))
      // It was running: its addresses are not to be changed.
      #expect(client.does(.setVringAddresses, addresses.bytes))
      #expect(!client.does(.setVringAddresses, addresses.bytes))
    }
    #expect(server.refusals[.badRingAddress] == 1 && server.refusals[.badRing] == 1)
  }

  /// A well-known back-end allocates for in-flight buffers (GET_INFLIGHT_FD, 31) as much as it is asked for.
  @Test func whatIsNotServedIsRefusedHoweverMuchIsAskedFor() throws {
    let file = memory(4096)
    defer { close(file) }
    let server = try served { path in
      let client = Client(path)
      try client.negotiate()
      var writer = ByteWriter()
      writer.write64(.max)
      writer.write64(0)
      writer.write16(.max)
      writer.write16(.max)
      for request: UInt32 in [31, 32, 6, 21, 37] {
        try client.say(request, writer.bytes, [file])
        let answer = try client.stream.receive(deadline: deadline)
        #expect(answer.payload == VhostUserNumber(1).bytes && answer.descriptors.sent == 0)
      }
      // Descriptors where none are due, and more than there can be, are closed.
      #expect(client.ask(.getFeatures, [], [Int32](repeating: file, count: 16)) != nil)
      #expect(!client.does(.setVringSize, VringState(ring: 0, value: 256).bytes, [file]))
    }
    #expect(server.refusals[.unknownRequest] == 5 && server.refusals[.badDescriptors] == 2)
  }

  @Test func frontEndsThatSayNothingOrComeAndGoMakeRoom() throws {
    let server = served { path in
      for _ in 0..<300 { _ = Client(path) }
      for byteCount in [1, 11, 12, 13] {
        let client = Client(path)
        let bytes = [UInt8](VhostUserStreamBytes.getFeatures.prefix(byteCount)) + [0]
        _ = send(client.stream.descriptor, bytes, min(byteCount, 12), 0)
      }
      let silent = Client(path)
      #expect(throws: VhostUserError.closed) {
        try silent.stream.receive(deadline: deadline).payload
          .isEmpty
      }
    }
    #expect(server.refusals[.silentFrontEnd] >= 1)
    #expect(server.frontEnds >= 306)
  }

  @Test func aFrontEndThatDoesNotReadItsAnswersIsDismissed() throws {
    let server = try served { path in
      let client = Client(path)
      try client.negotiate()
      let bytes = VhostUserStreamBytes.getFeatures
      for _ in 0..<100_000 {
        let sent = send(
          client.stream.descriptor, bytes, bytes.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
        if sent < 0 && errno != EAGAIN { break }
        if sent < 0 { usleep(10_000) }
      }
    }
    #expect(server.refusals[.blockedFrontEnd] == 1)
  }
}

private enum VhostUserStreamBytes {
  static let getFeatures: [UInt8] = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
}
