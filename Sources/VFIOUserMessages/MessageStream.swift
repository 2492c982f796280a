import CLinux
import Glibc

/// Descriptors that came with a message. Those that nobody takes are closed with it.
public struct ReceivedDescriptors: ~Copyable, Sendable {
  private var descriptors: [Int32] = []
  /// All that were sent, also those beyond the limit, which are closed already.
  public private(set) var sent = 0

  public init() {}

  public var count: Int { descriptors.count }

  /// Whether all that were sent are here, or were handed over.
  public var areComplete: Bool { sent == descriptors.count }

  public mutating func append(_ new: some Sequence<Int32>, sent: Int) {
    descriptors.append(contentsOf: new.filter { $0 >= 0 })
    self.sent += sent
  }

  /// The descriptor at `index`, which stays here; -1 where there is none.
  public func peek(_ index: Int) -> Int32 {
    descriptors.indices.contains(index) ? descriptors[index] : -1
  }

  /// Hands the descriptor at `index` over to the caller, who closes it; -1 where there is none.
  public mutating func take(_ index: Int) -> Int32 {
    guard descriptors.indices.contains(index) else { return -1 }
    defer { descriptors[index] = -1 }
    return descriptors[index]
  }

  deinit {
    for descriptor in descriptors where descriptor >= 0 { close(descriptor) }
  }
}

/// A whole message as it came from the peer.
public struct Message: ~Copyable, Sendable {
  public let header: MessageHeader
  public let payload: [UInt8]
  public var descriptors: ReceivedDescriptors

  public init(header: MessageHeader, payload: [UInt8], descriptors: consuming ReceivedDescriptors) {
    self.header = header
    self.payload = payload
    self.descriptors = descriptors
  }
}

/// Messages over a UNIX stream socket, put together from whatever pieces they come in. One thread at a time.
///
/// A message's bytes are asked for exactly: the kernel delivers descriptors with the first byte that they were sent
/// with, so that those which arrive while a message is read belong to it and to no other.
public final class MessageStream {
  public let descriptor: Int32
  private let closes: Bool
  private var header: [UInt8] = []
  private var parsed: MessageHeader?
  private var payload: [UInt8] = []
  private var received = 0
  private var descriptors = ReceivedDescriptors()
  /// The largest message that is taken, header included.
  public var maximumByteCount = MessageLimits.messageByteCount

  /// - Parameter closes: whether the socket is closed with the stream.
  public init(descriptor: Int32, closes: Bool = true) {
    self.descriptor = descriptor
    self.closes = closes
  }

  deinit { if closes { close(descriptor) } }

  /// Whether part of a message has come.
  public var hasPart: Bool { received > 0 }

  /// Reads what has come, without waiting.
  /// - Returns: a message once all of it is there, else nil.
  public func poll() throws(MessageError) -> Message? {
    if parsed == nil {
      if header.isEmpty { header = [UInt8](repeating: 0, count: MessageHeader.byteCount) }
      guard try fill(&header, upTo: MessageHeader.byteCount) else { return nil }
      var reader = ByteReader(header)
      guard let new = MessageHeader(&reader) else { return nil }
      guard new.size >= MessageHeader.byteCount else {
        throw .malformed("a message of \(new.size) bytes, less than its header")
      }
      guard new.size <= maximumByteCount else {
        throw .malformed("a message of \(new.size) bytes, over the limit of \(maximumByteCount)")
      }
      guard new.isReply || new.isCommand else {
        throw .malformed("a message of type \(new.flags.rawValue & 15)")
      }
      parsed = new
      received = 0
      payload = [UInt8](repeating: 0, count: Int(new.size) - MessageHeader.byteCount)
    }
    guard let header = parsed else { return nil }
    guard try fill(&payload, upTo: payload.count) else { return nil }
    let message = Message(
      header: header, payload: payload,
      descriptors: exchange(&descriptors, with: ReceivedDescriptors()))
    parsed = nil
    payload = []
    received = 0
    return message
  }

  private func fill(_ bytes: inout [UInt8], upTo count: Int) throws(MessageError) -> Bool {
    while received < count {
      var new: [Int32] = []
      var sent: Int32 = 0
      let already = received
      let most = MessageLimits.acceptedDescriptorCount
      let room = most - min(descriptors.count, most)
      let result = bytes.withUnsafeMutableBytes { buffer in
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: most) {
          slots in
          // In bounds: `already` is less than `count`, which is the buffer's own length.
          let result = linux_receive_descriptors(
            descriptor, buffer.baseAddress! + already, count - already, slots.baseAddress,
            Int32(room), &sent, Int32(MSG_DONTWAIT))
          if sent > 0 { new = Array(slots[0..<min(Int(sent), room)]) }
          return result
        }
      }
      if sent > 0 { descriptors.append(new, sent: Int(sent)) }
      switch result {
      case 0: throw .closed
      case Int(-EAGAIN): return false
      case Int(-EINTR): continue
      case Int(-ECONNRESET), Int(-EPIPE): throw .closed
      case ..<0: throw .system(call: "recvmsg", errno: Int32(-result))
      default: received += result
      }
    }
    return true
  }

  /// Waits for a message.
  /// - Parameter deadline: on the monotonic clock, in nanoseconds.
  public func receive(deadline: UInt64) throws(MessageError) -> Message {
    while true {
      if let message = try poll() { return message }
      try wait(for: Int16(POLLIN), deadline: deadline)
    }
  }

  /// Sends a message whole, waiting for room until the deadline.
  public func send(
    _ header: MessageHeader, _ payload: [UInt8] = [], descriptors: [Int32] = [], deadline: UInt64
  ) throws(MessageError) {
    var header = header
    header.size = UInt32(MessageHeader.byteCount + payload.count)
    var writer = ByteWriter(reserving: Int(header.size))
    header.write(to: &writer)
    writer.write(payload)
    try send(bytes: writer.bytes, descriptors: descriptors, deadline: deadline)
  }

  func send(bytes: [UInt8], descriptors: [Int32], deadline: UInt64) throws(MessageError) {
    var done = 0
    while done < bytes.count {
      let position = done
      let result = bytes.withUnsafeBytes { buffer in
        linux_send_descriptors(
          descriptor, buffer.baseAddress! + position, buffer.count - position, descriptors,
          position == 0 ? Int32(descriptors.count) : 0, Int32(MSG_DONTWAIT))
      }
      switch result {
      case Int(-EINTR): continue
      case Int(-EAGAIN): try wait(for: Int16(POLLOUT), deadline: deadline)
      case Int(-EPIPE), Int(-ECONNRESET): throw .closed
      case ..<0: throw .system(call: "sendmsg", errno: Int32(-result))
      default: done += result
      }
    }
  }

  /// Sends a region write of up to 8 bytes without allocating: the form of a doorbell.
  public func sendRegionWrite(
    identifier: UInt16, flags: MessageHeader.Flags, region: UInt32, offset: UInt64, width: Int,
    value: UInt64, deadline: UInt64
  ) throws(MessageError) {
    let total = MessageHeader.byteCount + RegionAccessMessage.byteCount + width
    var words: (UInt64, UInt64, UInt64, UInt64, UInt64) = (
      UInt64(identifier) | UInt64(VFIOUserCommand.regionWrite.rawValue) << 16
        | UInt64(total) << 32,
      UInt64(flags.rawValue), offset.littleEndian,
      UInt64(region) | UInt64(width) << 32, value
    )
    while true {
      // The message is smaller than any socket buffer: it goes whole or not at all.
      let result = withUnsafeBytes(of: &words) { buffer in
        linux_send_descriptors(
          descriptor, buffer.baseAddress!, min(total, buffer.count), nil, 0, Int32(MSG_DONTWAIT))
      }
      switch result {
      case Int(-EINTR): continue
      case Int(-EAGAIN): try wait(for: Int16(POLLOUT), deadline: deadline)
      case Int(-EPIPE), Int(-ECONNRESET): throw .closed
      case ..<0: throw .system(call: "sendmsg", errno: Int32(-result))
      default: return
      }
    }
  }

  /// Waits until the socket can be read or written.
  public func wait(for events: Int16, deadline: UInt64) throws(MessageError) {
    let now = monotonic_nanoseconds()
    guard now < deadline else { throw .timeout }
    var entry = pollfd(fd: descriptor, events: events, revents: 0)
    let milliseconds = min((deadline - now) / 1_000_000 + 1, 60_000)
    let result = Glibc.poll(&entry, 1, Int32(milliseconds))
    if result < 0 && errno != EINTR { throw .system(call: "poll", errno: errno) }
  }

  /// Throws away all that has come, for a stream that somebody else has read from and left in the middle.
  /// - Parameter deadline: for a peer that goes on sending.
  public func discardPending(deadline: UInt64) {
    parsed = nil
    payload = []
    received = 0
    descriptors = ReceivedDescriptors()
    var bytes = [UInt8](repeating: 0, count: 1 << 16)
    while monotonic_nanoseconds() < deadline {
      var sent: Int32 = 0
      let result = bytes.withUnsafeMutableBytes { buffer in
        linux_receive_descriptors(
          descriptor, buffer.baseAddress!, buffer.count, nil, 0, &sent,
          Int32(MSG_DONTWAIT))
      }
      if result <= 0 && result != Int(-EINTR) { return }
    }
  }
}

/// `exchange` for values that cannot be copied.
private func exchange<Value: ~Copyable>(_ value: inout Value, with new: consuming Value) -> Value {
  let old = consume value
  value = new
  return old
}
