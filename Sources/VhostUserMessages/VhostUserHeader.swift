import VFIOUserMessages

/// The header of every message: request, flags, payload size, 32 bits each.
public struct VhostUserHeader: Sendable, Equatable {
  public static let byteCount = 12
  private static let version: UInt32 = 1
  private static let replyFlag: UInt32 = 1 << 2
  private static let needReplyFlag: UInt32 = 1 << 3

  /// A ``VhostUserRequest``, or one that is not known here.
  public var request: UInt32
  public var isReply: Bool
  /// The sender wants an acknowledgement (with REPLY_ACK).
  public var needsReply: Bool
  /// Bytes of payload.
  public var size: UInt32

  public init(request: UInt32, isReply: Bool = false, needsReply: Bool = false, size: Int) {
    self.request = request
    self.isReply = isReply
    self.needsReply = needsReply
    self.size = UInt32(size)
  }

  /// - Throws: ``VhostUserError/malformed(_:)`` for another version of the protocol, flags that do not exist, or a
  ///   payload over the limit.
  init(_ bytes: [UInt8]) throws(VhostUserError) {
    var reader = ByteReader(bytes)
    guard let request = reader.read32(), let flags = reader.read32(), let size = reader.read32()
    else { throw .malformed("a header of \(bytes.count) bytes") }
    guard flags & 3 == Self.version else {
      throw .malformed("a message of version \(flags & 3), not \(Self.version)")
    }
    guard flags & ~(3 | Self.replyFlag | Self.needReplyFlag) == 0 else {
      throw .malformed("a message with the flags 0x\(String(flags, radix: 16))")
    }
    guard size <= VhostUserLimits.payloadByteCount else {
      throw .malformed(
        "a payload of \(size) bytes, over the limit of \(VhostUserLimits.payloadByteCount)")
    }
    self.request = request
    isReply = flags & Self.replyFlag != 0
    needsReply = flags & Self.needReplyFlag != 0
    self.size = size
  }

  func write(to writer: inout ByteWriter) {
    writer.write32(request)
    writer.write32(
      Self.version | (isReply ? Self.replyFlag : 0) | (needsReply ? Self.needReplyFlag : 0))
    writer.write32(size)
  }
}

/// Why an exchange of messages failed. The connection is of no more use after any of them.
public enum VhostUserError: Error, Sendable, Equatable {
  /// The peer closed the connection.
  case closed
  /// The peer did not answer, or did not read, in time.
  case timeout
  case system(call: String, errno: Int32)
  /// The peer broke the protocol.
  case malformed(String)
}
