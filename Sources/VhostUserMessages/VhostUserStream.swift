import CLinux
import Glibc
import VFIOUserMessages

/// A whole message as it came from the peer. Descriptors that nobody takes are closed with it.
public struct VhostUserMessage: ~Copyable {
  public let header: VhostUserHeader
  public let payload: [UInt8]
  public var descriptors: ReceivedDescriptors

  /// nil where the request is not known here.
  public var request: VhostUserRequest? { VhostUserRequest(rawValue: header.request) }
}

/// Messages over a UNIX stream socket, put together from whatever pieces they come in. One thread at a time.
///
/// A message's bytes are asked for exactly, so that descriptors which arrive while it is read belong to it.
public final class VhostUserStream {
  public let descriptor: Int32
  private let closes: Bool
  private var bytes = [UInt8](repeating: 0, count: VhostUserHeader.byteCount)
  private var header: VhostUserHeader?
  private var received = 0
  private var descriptors = ReceivedDescriptors()

  /// - Parameter closes: whether the socket is closed with the stream.
  public init(descriptor: Int32, closes: Bool) {
    self.descriptor = descriptor
    self.closes = closes
  }

  deinit { if closes { close(descriptor) } }

  /// Reads what has come, without waiting.
  /// - Returns: a message once all of it is there, else nil.
  public func poll() throws(VhostUserError) -> VhostUserMessage? {
    if header == nil {
      guard try fill() else { return nil }
      let new = try VhostUserHeader(bytes)
      header = new
      begin(byteCount: Int(new.size))
    }
    guard let header else { return nil }
    guard try fill() else { return nil }
    var taken = ReceivedDescriptors()
    swap(&taken, &descriptors)
    let message = VhostUserMessage(header: header, payload: bytes, descriptors: taken)
    self.header = nil
    begin(byteCount: VhostUserHeader.byteCount)
    return message
  }

  private func begin(byteCount: Int) {
    bytes = [UInt8](repeating: 0, count: byteCount)
    received = 0
  }

  private func fill() throws(VhostUserError) -> Bool {
    let most = VhostUserLimits.regions
    while received < bytes.count {
      var new: [Int32] = []
      var sent: Int32 = 0
      let already = received
      let room = max(0, most - descriptors.count)
      let result = bytes.withUnsafeMutableBytes { buffer in
        withUnsafeTemporaryAllocation(of: Int32.self, capacity: most) { slots in
          // In bounds: `already` is less than the buffer's own length.
          let result = linux_receive_descriptors(
            descriptor, buffer.baseAddress! + already, buffer.count - already,
            slots.baseAddress, Int32(room), &sent, Int32(MSG_DONTWAIT))
          if sent > 0 { new = Array(slots[0..<min(Int(sent), room)]) }
          return result
        }
      }
      if sent > 0 { descriptors.append(new, sent: Int(sent)) }
      switch result {
      case 0, Int(-ECONNRESET), Int(-EPIPE): throw .closed
      case Int(-EAGAIN): return false
      case Int(-EINTR): continue
      case ..<0: throw .system(call: "recvmsg", errno: Int32(-result))
      default: received += result
      }
    }
    return true
  }

  /// Waits for a message.
  /// - Parameter deadline: on the monotonic clock, in nanoseconds.
  public func receive(deadline: UInt64) throws(VhostUserError) -> VhostUserMessage {
    while true {
      if let message = try poll() { return message }
      try wait(for: Int16(POLLIN), deadline: deadline)
    }
  }

  /// Sends a message whole, waiting for room until the deadline.
  public func send(
    _ header: VhostUserHeader, _ payload: [UInt8], descriptors: [Int32] = [], deadline: UInt64
  ) throws(VhostUserError) {
    var writer = ByteWriter(reserving: VhostUserHeader.byteCount + payload.count)
    header.write(to: &writer)
    writer.write(payload)
    var done = 0
    while done < writer.bytes.count {
      let position = done
      let result = writer.bytes.withUnsafeBytes { buffer in
        // In bounds: `position` is less than the buffer's own length.
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

  private func wait(for events: Int16, deadline: UInt64) throws(VhostUserError) {
    let now = monotonic_nanoseconds()
    guard now < deadline else { throw .timeout }
    var entry = pollfd(fd: descriptor, events: events, revents: 0)
    let milliseconds = min((deadline - now) / 1_000_000 + 1, 60_000)
    let result = Glibc.poll(&entry, 1, Int32(milliseconds))
    if result < 0 && errno != EINTR { throw .system(call: "poll", errno: errno) }
  }

  /// Says that nothing more is sent, and waits until the peer has closed its end too.
  /// - Returns: false where it has not by the deadline.
  public func finish(deadline: UInt64) -> Bool {
    shutdown(descriptor, Int32(SHUT_WR))
    var scratch = [UInt8](repeating: 0, count: 4096)
    while true {
      var sent: Int32 = 0
      let result = linux_receive_descriptors(
        descriptor, &scratch, scratch.count, nil, 0, &sent, Int32(MSG_DONTWAIT))
      if result > 0 || result == Int(-EINTR) {
        if monotonic_nanoseconds() >= deadline { return false }
        continue
      }
      if result != Int(-EAGAIN) { return true }
      do {
        try wait(for: Int16(POLLIN), deadline: deadline)
      } catch {
        return false
      }
    }
  }

  /// Whether the peer has said anything unasked, or has gone. Does not wait.
  public var isDisturbed: Bool {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return Glibc.poll(&entry, 1, 0) > 0
  }
}
