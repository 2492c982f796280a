import CLinux
import Glibc

/// A wire that ends in pcap files (classic format, Ethernet): what the device sends is written to one, and the frames
/// of another are received in their order, as fast as the driver takes them.
public final class CaptureWire: FrameWire {
  private let output: Int32
  private var arriving: ArraySlice<UInt8>
  private let isSwapped: Bool
  private var buffer: [UInt8] = []
  private static let magic: UInt32 = 0xa1b2_c3d4
  private static let nanosecondMagic: UInt32 = 0xa1b2_3c4d
  private static let ethernet: UInt32 = 1
  private static let mostFrameBytes = 65535

  /// - Parameters:
  ///   - output: the file to write, which is made or emptied.
  ///   - input: a file whose frames are received, read whole at the start.
  public init(output path: String, input: String? = nil) throws(WireError) {
    var arriving: ArraySlice<UInt8> = []
    var isSwapped = false
    if let input {
      let bytes = try Self.readFile(input)
      guard bytes.count >= 24 else { throw .malformed("\(input) is no pcap file: too short") }
      let magic = Self.word(bytes[...], 0, swapped: false)
      isSwapped = magic == Self.magic.byteSwapped || magic == Self.nanosecondMagic.byteSwapped
      guard isSwapped || magic == Self.magic || magic == Self.nanosecondMagic else {
        throw .malformed("\(input) is no classic pcap file (editcap -F pcap makes one)")
      }
      guard Self.word(bytes[...], 20, swapped: isSwapped) & 0xffff == Self.ethernet else {
        throw .malformed("\(input) holds no Ethernet frames")
      }
      arriving = bytes.dropFirst(24)
    }
    self.arriving = arriving
    self.isSwapped = isSwapped
    output = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard output >= 0 else { throw .system("write \(path)", errno: errno) }
    var header: [UInt8] = []
    let version: UInt32 = 4 << 16 | 2
    let words: [UInt32] = [
      Self.magic, version, 0, 0, UInt32(Self.mostFrameBytes), Self.ethernet,
    ]
    for value in words {
      Self.append(value, to: &header)
    }
    guard write(output, header, header.count) == header.count else {
      let error = errno
      close(output)
      throw .system("write \(path)", errno: error)
    }
    buffer.reserveCapacity(65536 + 16)
  }

  deinit { close(output) }

  public var carriesOffloads: Bool { false }
  public var descriptor: Int32 { -1 }

  public func send(_ pieces: UnsafeBufferPointer<iovec>) -> Bool {
    let count = pieces.reduce(0) { $0 + $1.iov_len } - 12
    guard count > 0, count <= Self.mostFrameBytes else { return false }
    record(count, skipping: 12, of: pieces)
    return buffer.withUnsafeBytes { write(output, $0.baseAddress, $0.count) } == buffer.count
  }

  public func receive(into pieces: UnsafeBufferPointer<iovec>) -> Int? {
    guard arriving.count >= 16 else { return nil }
    let captured = Int(
      Self.word(arriving, 8, swapped: isSwapped))
    guard captured <= Self.mostFrameBytes, captured <= arriving.count - 16 else {
      // A file that ends in the middle of a frame has no further ones.
      arriving = []
      return nil
    }
    let frame = arriving.dropFirst(16).prefix(captured)
    arriving = arriving.dropFirst(16 + captured)
    guard captured > 0 else { return receive(into: pieces) }
    var skip = 12
    var position = frame.startIndex
    for piece in pieces {
      let bytes = UnsafeMutableRawBufferPointer(start: piece.iov_base, count: piece.iov_len)
      let header = min(skip, bytes.count)
      skip -= header
      for index in 0..<header { bytes[index] = 0 }
      let count = min(bytes.count - header, frame.endIndex - position)
      if count > 0 {
        UnsafeMutableRawBufferPointer(rebasing: bytes[header..<header + count])
          .copyBytes(from: frame[position..<position + count])
        position += count
      }
    }
    return captured + 12
  }

  /// One record in `buffer`, so that it reaches the file whole.
  private func record(_ count: Int, skipping: Int, of pieces: UnsafeBufferPointer<iovec>) {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    buffer.removeAll(keepingCapacity: true)
    for value in [
      UInt32(truncatingIfNeeded: now.tv_sec), UInt32(now.tv_nsec / 1000), UInt32(count),
      UInt32(count),
    ] { Self.append(value, to: &buffer) }
    var skip = skipping
    for piece in pieces {
      let cut = min(skip, piece.iov_len)
      skip -= cut
      buffer.append(
        contentsOf: UnsafeRawBufferPointer(start: piece.iov_base, count: piece.iov_len)[cut...])
    }
  }

  private static func append(_ value: UInt32, to bytes: inout [UInt8]) {
    for shift in [0, 8, 16, 24] { bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(shift))) }
  }

  private static func word(_ bytes: ArraySlice<UInt8>, _ offset: Int, swapped: Bool) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<4 {
      value |= UInt32(bytes[bytes.startIndex + offset + index]) << UInt32(8 * index)
    }
    return swapped ? value.byteSwapped : value
  }

  private static func readFile(_ path: String) throws(WireError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .system("read \(path)", errno: errno) }
    defer { close(descriptor) }
    var result: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(descriptor, &chunk, chunk.count)
      guard count >= 0 else { throw .system("read \(path)", errno: errno) }
      if count == 0 { return result }
      result.append(contentsOf: chunk[0..<count])
      if result.count > 1 << 30 { throw .malformed("\(path) is larger than 1 GiB") }
    }
  }
}
