import CLinux
import Glibc
import Testing
import Wire

/// Calls `body` with pieces over `buffers`, as a device has them from its driver.
func withPieces<Result>(
  _ buffers: inout [[UInt8]], _ body: (UnsafeBufferPointer<iovec>) throws -> Result
) rethrows -> Result {
  let copies = buffers.map { bytes in
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
    copy.copyBytes(from: bytes)
    return copy
  }
  defer {
    for (index, copy) in copies.enumerated() {
      buffers[index] = Array(copy)
      copy.deallocate()
    }
  }
  let pieces = copies.map { iovec(iov_base: $0.baseAddress, iov_len: $0.count) }
  return try pieces.withUnsafeBufferPointer(body)
}

func testFrame(_ count: Int, _ seed: UInt8 = 0) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: $0) &+ seed }
}

@Suite struct WireTests {
  func send(_ wire: some FrameWire, _ frame: [UInt8], cut: Int = 12) -> Bool {
    let bytes = [UInt8](repeating: 0, count: 12) + frame
    var buffers = [Array(bytes[..<cut]), Array(bytes[cut...])]
    return withPieces(&buffers) { wire.send($0) }
  }

  func receive(_ wire: some FrameWire, room: [Int] = [12, 2000]) -> (count: Int, frame: [UInt8])? {
    var buffers = room.map { [UInt8](repeating: 0xee, count: $0) }
    guard let count = withPieces(&buffers, { wire.receive(into: $0) }) else { return nil }
    let bytes = Array(buffers.joined().prefix(count))
    #expect(bytes.prefix(12).allSatisfy { $0 == 0 })
    return (count, Array(bytes.dropFirst(12)))
  }

  @Test func datagramsAreFramesHoweverTheyAreScattered() throws {
    let (near, far) = try DatagramWire.pair()
    for cut in [1, 11, 12, 13, 40] {
      #expect(send(near, testFrame(60, UInt8(cut)), cut: cut))
      #expect(receive(far, room: [5, 7, 1, 30, 100])?.frame == testFrame(60, UInt8(cut)))
    }
    #expect(receive(far) == nil)
    // More than there is room for: its whole length tells that it was cut.
    #expect(send(near, testFrame(500)))
    #expect(receive(far, room: [12, 100])?.count == 512)
    #expect(!send(near, []))
  }

  @Test func datagramsOverLoopbackGoBothWaysAndNotFurther() throws {
    let base = UInt16.random(in: 20000..<30000)
    let near = try DatagramWire.udp(local: "\(base)", remote: "127.0.0.1:\(base + 1)")
    // Nobody is there yet: the frame is lost, and the wire stays.
    _ = send(near, testFrame(60))
    #expect(receive(near) == nil)
    let far = try DatagramWire.udp(local: "127.0.0.1:\(base + 1)", remote: "\(base)")
    #expect(send(near, testFrame(1400)))
    #expect(send(far, testFrame(70)))
    for wire in [near, far] {
      var entry = pollfd(fd: wire.descriptor, events: Int16(POLLIN), revents: 0)
      #expect(poll(&entry, 1, 30_000) == 1)
    }
    #expect(receive(far)?.frame == testFrame(1400))
    #expect(receive(near)?.frame == testFrame(70))
    for wrong in ["10.0.0.1:7000", "0.0.0.0:7000", "127.0.0.1:0", "127.0.0.1", "x:1", "1:2:3", ""] {
      #expect(throws: WireError.self) { try DatagramWire.udp(local: wrong, remote: "1") }
    }
    #expect(throws: WireError.self) { try DatagramWire.udp(local: "\(base)", remote: "1") }
  }

  @Test func whatIsSentCanBeReceivedFromTheCapture() throws {
    let path = "/tmp/martlet-wire-\(getpid()).pcap"
    let second = path + "2"
    defer {
      unlink(path)
      unlink(second)
    }
    do {
      let wire = try CaptureWire(output: path)
      for count in [60, 1514, 61] { #expect(send(wire, testFrame(count))) }
      #expect(!send(wire, testFrame(70000)))
      #expect(receive(wire) == nil)
    }
    var status = stat()
    stat(path, &status)
    #expect(status.st_size == 24 + 3 * 16 + 60 + 1514 + 61)
    let replay = try CaptureWire(output: second, input: path)
    for count in [60, 1514, 61] { #expect(receive(replay)?.frame == testFrame(count)) }
    #expect(receive(replay) == nil)
    // A file that ends in the middle of a frame ends there.
    truncate(path, 24 + 16 + 60 + 16 + 100)
    let cut = try CaptureWire(output: second, input: path)
    #expect(receive(cut)?.count == 72)
    #expect(receive(cut) == nil)
    #expect(throws: WireError.self) { try CaptureWire(output: second, input: "/dev/null") }
    #expect(throws: WireError.self) { try CaptureWire(output: second, input: "/proc/self/exe") }
    #expect(throws: WireError.self) { try CaptureWire(output: "/nowhere/x") }
  }

  /// In a network namespace of this thread's own, where the machine allows that.
  @Test(.enabled(if: geteuid() == 0 && access("/dev/net/tun", R_OK | W_OK) == 0))
  func framesGoToTheKernelAndBackWithTheirHeaders() async {
    let failure = await withCheckedContinuation { continuation in
      final class Box {
        let body: () -> Void
        init(_ body: @escaping () -> Void) { self.body = body }
      }
      let box = Box { continuation.resume(returning: Self.tap()) }
      var thread = pthread_t()
      pthread_create(
        &thread, nil,
        { argument in
          Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
          return nil
        }, Unmanaged.passRetained(box).toOpaque())
      pthread_detach(thread)
    }
    #expect(failure == nil)
  }

  private static func tap() -> String? {
    guard linux_unshare_network() == 0 else { return nil }
    guard let wire = try? TapWire(name: "wire0") else { return "no TAP" }
    guard wire.carriesOffloads, linux_set_interface_up("wire0") == 0 else { return "not up" }
    wire.setReceiveOffloads(checksum: true, tcp4: true, tcp6: true)
    let packet = socket(AF_PACKET, Int32(SOCK_RAW.rawValue), Int32(UInt16(0x0003).bigEndian))
    defer { close(packet) }
    // A sockaddr_ll: family, protocol (all), interface.
    let index = if_nametoindex("wire0")
    let address: [UInt8] =
      [UInt8(AF_PACKET), 0, 0, 3] + (0..<4).map { UInt8(truncatingIfNeeded: index >> (8 * $0)) }
      + [UInt8](repeating: 0, count: 12)
    let bound = address.withUnsafeBytes {
      bind(packet, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), 20)
    }
    guard bound == 0 else { return "no packet socket" }
    let frame: [UInt8] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5] + testFrame(100)
    guard WireTests().send(wire, frame, cut: 20) else { return "not sent" }
    var buffer = [UInt8](repeating: 0, count: 2000)
    for _ in 0..<100 {
      let count = recv(packet, &buffer, buffer.count, 0)
      if count == frame.count && Array(buffer[0..<count]) == frame { break }
      if count < 0 { return "not received by the kernel" }
    }
    guard Glibc.send(packet, frame, frame.count, 0) == frame.count else {
      return "kernel sent nothing"
    }
    for _ in 0..<30_000 {
      if let (_, bytes) = WireTests().receive(wire, room: [12, 50, 1500]), bytes == frame {
        return nil
      }
      usleep(1000)
    }
    return "not received from the kernel"
  }

  @Test func aDescriptorThatIsNoTAPIsRefused() {
    let file = linux_memfd_create("x", LINUX_MFD_CLOEXEC)
    #expect(throws: WireError.self) { try TapWire(adopting: file) }
    #expect(fcntl(file, F_GETFD) >= 0)
    close(file)
    #expect(throws: WireError.self) { try TapWire(name: String(repeating: "x", count: 20)) }
  }
}
