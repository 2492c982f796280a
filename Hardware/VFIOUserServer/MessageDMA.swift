import CLinux
import EmulatedPCI
import VFIOUserMessages

/// DMA to memory that a client gave without a descriptor: a command to the client for each access, while commands of
/// the client that come in between are kept for later.
final class MessageDMA: CheckedIOMMU.Messages {
  /// A message of the client that waits for its turn.
  final class Held {
    var message: Message?
    init(_ message: consuming Message) { self.message = consume message }
  }

  /// Nanoseconds that a client has for an answer: the device does nothing else meanwhile.
  private static let timeout: UInt64 = 2_000_000_000
  /// More is not kept: messages, and bytes and descriptors in them.
  private static let mostHeld = 4096
  private static let mostHeldBytes = 8 << 20
  private static let mostHeldDescriptors = 256

  private let stream: MessageStream
  var maximumDataByteCount = MessageLimits.dataByteCount
  private(set) var held: [Held] = []
  private var heldBytes = 0
  private var heldDescriptors = 0
  /// Why the client cannot be asked any more.
  private(set) var failure: MessageError?
  private(set) var messages: UInt64 = 0
  private var identifier: UInt16 = 0

  init(_ stream: MessageStream) { self.stream = stream }

  func takeHeld() -> Held? {
    if held.isEmpty { return nil }
    if held.count == 1 { (heldBytes, heldDescriptors) = (0, 0) }
    return held.removeFirst()
  }

  func read(_ iova: UInt64, into bytes: UnsafeMutableRawBufferPointer) -> Bool {
    forEachPiece(iova, bytes.count) { (address, offset, count) throws(MessageError) in
      let access = DMAAccessMessage(address: address, count: UInt64(count))
      var request = ByteWriter()
      access.write(to: &request)
      let reply = try exchange(.dmaRead, request.bytes)
      var reader = ByteReader(reply)
      guard let answer = DMAAccessMessage(&reader), answer.count == count,
        let data = reader.readBytes(count)
      else { throw .malformed("a DMA read was answered with too few bytes") }
      UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<offset + count]).copyBytes(from: data)
    }
  }

  func write(_ iova: UInt64, from bytes: UnsafeRawBufferPointer) -> Bool {
    forEachPiece(iova, bytes.count) { (address, offset, count) throws(MessageError) in
      var request = ByteWriter(reserving: DMAAccessMessage.byteCount + count)
      DMAAccessMessage(address: address, count: UInt64(count)).write(to: &request)
      request.write(bytes[offset..<offset + count])
      _ = try exchange(.dmaWrite, request.bytes)
    }
  }

  private func forEachPiece(
    _ iova: UInt64, _ byteCount: Int, _ body: (UInt64, Int, Int) throws(MessageError) -> Void
  ) -> Bool {
    guard failure == nil else { return false }
    var done = 0
    do {
      while done < byteCount {
        let count = min(byteCount - done, maximumDataByteCount)
        try body(iova + UInt64(done), done, count)
        done += count
      }
      return true
    } catch .refused {
      return false
    } catch {
      failure = error
      return false
    }
  }

  private func exchange(_ command: VFIOUserCommand, _ payload: [UInt8]) throws(MessageError)
    -> [UInt8]
  {
    messages += 1
    identifier &+= 1
    let deadline = monotonic_nanoseconds() + Self.timeout
    try stream.send(
      MessageHeader(identifier: identifier, command: command.rawValue, size: 0), payload,
      deadline: deadline)
    while true {
      let message = try stream.receive(deadline: deadline)
      if message.header.isReply {
        guard message.header.identifier == identifier, message.descriptors.sent == 0 else {
          throw .malformed("a reply to nothing that was asked")
        }
        if message.header.flags.contains(.error) {
          throw .refused(command: command.rawValue, errno: message.header.errno)
        }
        return message.payload
      }
      heldBytes += message.payload.count
      heldDescriptors += message.descriptors.sent
      guard held.count < Self.mostHeld, heldBytes <= Self.mostHeldBytes,
        heldDescriptors <= Self.mostHeldDescriptors
      else { throw .malformed("too many commands at once") }
      held.append(Held(message))
    }
  }
}
