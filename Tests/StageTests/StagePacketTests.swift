import Channel
import Memory
import Stage
import Steering
import Testing

/// A stage made of a closure.
struct ClosureStage: PacketStage, ~Copyable {
  typealias Body = (inout StagePacket, inout StageOutput) -> Verdict
  private let body: Body

  init(_ configuration: String, _ interface: StageInterface) { body = { _, _ in .pass } }

  init(_ body: @escaping Body) { self.body = body }

  mutating func process(_ packet: inout StagePacket, _ output: inout StageOutput) -> Verdict {
    body(&packet, &output)
  }

  static func bench(
    room: Int = 64, _ body: @escaping Body
  ) throws -> StageBench<ClosureStage> {
    try StageBench(of: ClosureStage(body), packets: 64, room: room)
  }
}

@Suite struct StagePacketTests {
  static let change4 = HeaderChange(
    source: NetworkAddress(ipv4: 0xc633_6401), destination: NetworkAddress(ipv4: 0xffff_0001),
    sourcePort: 40001, destinationPort: 65535)
  static let change6 = HeaderChange(
    source: NetworkAddress(ipv6High: 0xfd00_0000_ffff_1234, low: 0x8000_0000_0000_0001),
    destination: NetworkAddress(ipv6High: 0xfd00_0000_0000_0000, low: 0xffff_ffff_ffff_ffff),
    sourcePort: 1, destinationPort: 0xff00)

  private func rewritten(
    _ frame: Frame, _ change: HeaderChange, metadata: Offload = Offload(), isWritten: Bool = true
  ) throws -> [UInt8] {
    var bench = try ClosureStage.bench { packet, _ in
      expect(packet.rewrite(packet.header, change) == isWritten)
      return .pass
    }
    let out = bench.send(BenchPacket(frame.bytes, .transmit, metadata: metadata))
    #expect(
      out.count == 1 && out[0].metadata == metadata && out[0].bytes.count == frame.bytes.count)
    return try #require(out.first).bytes
  }

  static let frames: [Frame] = {
    var frames: [Frame] = []
    let kinds: [(UInt8, Bool)] = [
      (6, false), (6, true), (17, false), (17, true), (1, false), (58, true),
    ]
    for (transport, isIPv6) in kinds {
      for count in [0, 1, 2, 7, 100, 101] {
        var frame = Frame(transport: transport, isIPv6: isIPv6)
        frame.payload = (0..<count).map { UInt8(truncatingIfNeeded: $0 * 37 + 200) }
        if isIPv6 { (frame.source, frame.destination) = (Frame.ipv6(1), Frame.ipv6(2)) }
        if transport == 58 { frame.messageType = 128 }
        frames.append(frame)
      }
    }
    return frames
  }()

  @Test(arguments: frames)
  func checksumsFollowTheHeaders(frame: Frame) throws {
    try #require(Plain.problems(frame.bytes) == "")
    var change = frame.isIPv6 ? Self.change6 : Self.change4
    if frame.transport == 1 || frame.transport == 58 {
      (change.sourcePort, change.destinationPort, change.identifier) = (nil, nil, 0xabcd)
    }
    let bytes = try rewritten(frame, change)
    #expect(Plain.problems(bytes) == "")
    #expect(bytes != frame.bytes)
    var other = frame
    if frame.isIPv6 {
      other.source = Array(bytes[22..<38])
      other.destination = Array(bytes[38..<54])
    } else {
      (other.source, other.destination) = ([198, 51, 100, 1], [255, 255, 0, 1])
    }
    other.sourcePort = change.identifier ?? change.sourcePort ?? 0
    other.destinationPort = change.destinationPort ?? 0
    #expect(bytes == other.bytes)
  }

  /// Only the pseudo-header is in the field: addresses change it, ports do not.
  @Test(arguments: frames.filter { $0.transport == 6 || $0.transport == 17 })
  func partialSumsFollowTheAddresses(frame: Frame) throws {
    var frame = frame
    frame.isPartial = true
    let field = UInt16(frame.transport == 6 ? 16 : 6)
    let metadata = Offload(
      segmentation: frame.transport == 6 ? .tcp4 : .none, needsChecksum: true, headerLength: 54,
      segmentSize: frame.transport == 6 ? 536 : 0, checksumStart: UInt16(frame.transportOffset),
      checksumOffset: field)
    let bytes = try rewritten(
      frame, frame.isIPv6 ? Self.change6 : Self.change4, metadata: metadata)
    let start = frame.transportOffset
    var other = frame
    if frame.isIPv6 {
      (other.source, other.destination) = (Array(bytes[22..<38]), Array(bytes[38..<54]))
    } else {
      (other.source, other.destination) = ([198, 51, 100, 1], [255, 255, 0, 1])
    }
    let sum = Plain.sum(other.pseudoHeader(bytes.count - start))
    #expect(Plain.number(bytes, start + Int(field)) == sum)
    // What the device makes of it is right.
    var completed = bytes
    let checksum = ~Plain.sum(bytes[start...])
    completed.replaceSubrange(
      start + Int(field)..<start + Int(field) + 2, with: Plain.bytes(checksum))
    #expect(Plain.problems(completed) == "")
  }

  @Test func aMissingUDPChecksumStaysMissing() throws {
    let bytes = try rewritten(Frame(hasNoChecksum: true), Self.change4)
    #expect(Plain.number(bytes, 40) == 0)
    #expect(Plain.problems(bytes) == "")
  }

  /// A UDP checksum that would become 0 is 0xffff, and one of 0xffff goes on from 0.
  @Test func udpChecksumsOfZeroAreWrittenAsOnes() throws {
    var (zeros, ones) = (0, 0)
    for port in 1...UInt16.max {
      var change = ChecksumChange()
      change.replace(5000, with: port)
      let old = Plain.number(Frame().bytes, 40)
      if change.applied(to: old) != 0 { continue }
      zeros += 1
      let bytes = try rewritten(Frame(), HeaderChange(sourcePort: port))
      #expect(Plain.number(bytes, 40) == 0xffff)
      #expect(Plain.problems(bytes) == "")
      let back = try rewritten(Frame(sourcePort: port), HeaderChange(sourcePort: 5000))
      #expect(back == Frame().bytes)
      ones += 1
    }
    #expect(zeros > 0 && ones == zeros)
  }

  @Test func fragmentsHaveAddressesOnly() throws {
    let later = Frame(transport: 6, payload: [1, 2, 3, 4], fragment: 185)
    let bytes = try rewritten(later, HeaderChange(source: Self.change4.source))
    #expect(Plain.sum(bytes[14..<34]) == 0xffff && bytes[34...] == [1, 2, 3, 4])
    _ = try rewritten(later, Self.change4, isWritten: false)
    // The first one's checksum covers the rest too, which takes the same change.
    let payload = [UInt8](repeating: 7, count: 32)
    let whole = Frame(payload: payload)
    var first = whole.bytes
    first.replaceSubrange(20..<22, with: [0x20, 0])
    var bench = try ClosureStage.bench { packet, _ in
      _ = packet.rewrite(packet.header, Self.change4)
      return .pass
    }
    let out = bench.send(BenchPacket(Array(first.dropLast(16)), .transmit))[0].bytes
    #expect(Plain.number(out, 40) == Plain.number(try rewritten(whole, Self.change4), 40))
  }

  @Test func whatIsNotThereIsNotWritten() throws {
    let whole = Frame(transport: 6, payload: [1, 2, 3], options: [1, 1, 1, 1], tags: [5, 6]).bytes
    for count in 0..<whole.count {
      var bench = try ClosureStage.bench { packet, _ in
        let isWritten = packet.rewrite(packet.header, Self.change4)
        expect(isWritten == (count >= 66))
        return .pass
      }
      let out = bench.send(BenchPacket(Array(whole[..<count]), .transmit))
      #expect(out[0].bytes == Array(whole[..<count]) || count >= 66)
    }
    // Another family, no ports, no identifier.
    _ = try rewritten(Frame(), Self.change6, isWritten: false)
    _ = try rewritten(Frame(transport: 1), HeaderChange(sourcePort: 5), isWritten: false)
    _ = try rewritten(Frame(), HeaderChange(identifier: 5), isWritten: false)
  }

  // MARK: Room

  @Test(arguments: [0, 3, 64])
  func bytesComeInAndGoOut(room: Int) throws {
    let frame = Frame(payload: Array(0..<100)).bytes
    for offset in [0, 1, 12, 70, 71, 72, frame.count] {
      for count in [0, 1, 4, 64, 65] {
        var bench = try ClosureStage.bench(room: room) { packet, _ in
          let isDone = packet.insert(count, at: offset)
          if isDone {
            for index in 0..<count { packet.store8(0xee, at: offset + index) }
          }
          packet.mark = isDone ? 1 : 0
          return .pass
        }
        let out = bench.send(BenchPacket(frame, .receive))[0]
        // The place behind is at least as large: memory is in whole packets.
        #expect((out.mark == 1) == true, "\(count) at \(offset)")
        let between = [UInt8](repeating: 0xee, count: count)
        #expect(out.bytes == Array(frame[..<offset]) + between + Array(frame[offset...]))
        var other = try ClosureStage.bench(room: room) { packet, _ in
          packet.mark = packet.remove(count, at: offset) ? 1 : 0
          return .pass
        }
        let removed = other.send(BenchPacket(frame, .receive))[0]
        #expect((removed.mark == 1) == (offset + count <= frame.count))
        if removed.mark != 1 { continue }
        #expect(removed.bytes == Array(frame[..<offset]) + Array(frame[(offset + count)...]))
      }
    }
  }

  @Test func thereIsNoMoreThanTheRoom() throws {
    let long = [UInt8](repeating: 1, count: 2048)
    for (count, isDone) in [(64, true), (65, true), (128, true), (129, false), (-1, false)] {
      var bench = try ClosureStage.bench { packet, _ in
        expect(packet.room == 128)
        // Half of it on each side.
        var left = count
        while left > 64, packet.insert(64, at: 0) || packet.insert(64, at: packet.byteCount) {
          left -= 64
        }
        expect(
          (packet.insert(left, at: 0) || packet.insert(left, at: packet.byteCount)) == isDone)
        return .pass
      }
      _ = bench.send(BenchPacket(long, .receive))
    }
  }

  @Test func metadataMoveWithTheBytes() throws {
    let metadata = Offload(
      segmentation: .tcp4, needsChecksum: true, headerLength: 54, segmentSize: 536,
      checksumStart: 34, checksumOffset: 16)
    let frame = Frame(transport: 6, payload: Array(0..<100), isPartial: true).bytes
    func metadataAfter(_ body: @escaping (inout StagePacket) -> Bool) throws -> Offload? {
      var bench = try ClosureStage.bench { packet, _ in body(&packet) ? .pass : .drop }
      return bench.send(BenchPacket(frame, .transmit, metadata: metadata)).first?.metadata
    }
    let tagged = try #require(try metadataAfter { $0.insert(4, at: 12) })
    #expect(tagged.checksumStart == 38 && tagged.headerLength == 58 && tagged.segmentSize == 536)
    let same = try metadataAfter { $0.insert(4, at: 12) && $0.remove(4, at: 12) }
    #expect(same == metadata)
    let behind = try metadataAfter { $0.insert(4, at: 60) }
    #expect(behind == metadata)
    let shorter = try metadataAfter { $0.remove(14, at: 0) }
    #expect(shorter?.checksumStart == 20 && shorter?.headerLength == 40)
    #expect(try metadataAfter { $0.insert(2, at: 40) } == nil)
    #expect(try metadataAfter { $0.remove(2, at: 50) } == nil)
    #expect(try metadataAfter { $0.remove(20, at: 20) } == nil)
    #expect(try metadataAfter { $0.insert(65535, at: 0) } == nil)
  }

  @Test func whatTheStageDoesNotSeeStays() throws {
    let frame = Frame(payload: Array(0..<200)).bytes
    var bench = try ClosureStage.bench { packet, _ in
      expect(packet.byteCount == 64 && packet.totalBytes == frame.count && packet.isPartial)
      expect(!packet.insert(4, at: 64) && packet.insert(4, at: 12))
      packet.store32(0x8100_002a, at: 12)
      return .pass
    }
    let out = bench.send(BenchPacket(frame, .transmit, seenBytes: 64))
    #expect(out[0].bytes == Array(frame[..<12]) + [0x81, 0, 0, 42] + Array(frame[12...]))
  }
}
