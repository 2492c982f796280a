import Crypto
import Driver
import Foundation
import Memory

/// Seals packets with ChaCha20-Poly1305 (RFC 8439) as they go on the ring: an example of a transform that may refuse a
/// packet. A packet that is dropped or taken back before costs no encryption, and uses up no nonce.
///
/// A frame is `clearBytes` of headers, which are authenticated and stay readable, 8 bytes for the sequence number, which
/// the seal writes, the payload, and 16 bytes for the tag, which the sender has left free.
public struct PacketSeal: TransmitTransform, ~Copyable {
  /// Bytes that a frame has beside headers and payload.
  public static var overhead: Int { 8 + 16 }

  private let key: SymmetricKey
  private let clearBytes: Int
  // Invariant: `capacity` bytes until deinit. The sender may change its own while they are sealed: what is sealed is this copy.
  private let scratch: UnsafeMutableRawPointer
  private static var capacity: Int { 65536 + 18 }
  /// The next packet's sequence number.
  public private(set) var sequence: UInt64 = 0

  /// - Parameters:
  ///   - key: 32 bytes, used with this value alone: a nonce must not come twice.
  ///   - clearBytes: bytes of headers.
  public init(key: SymmetricKey, clearBytes: Int) {
    precondition(clearBytes >= 0 && key.bitCount == 256)
    self.key = key
    self.clearBytes = clearBytes
    scratch = .allocate(byteCount: Self.capacity, alignment: 64)
  }

  deinit { scratch.deallocate() }

  /// A packet without space for number and tag may not leave.
  public mutating func transform(_ packet: borrowing TransmitPacket) -> Bool {
    let count = packet.byteCount
    guard count >= clearBytes + Self.overhead, count <= Self.capacity else { return false }
    var at = 0
    for index in 0..<packet.pieceCount {
      let piece = packet.piece(index)
      (scratch + at).copyMemory(from: piece.address, byteCount: piece.byteCount)
      at += piece.byteCount
    }
    scratch.storeBytes(of: sequence.bigEndian, toByteOffset: clearBytes, as: UInt64.self)
    let start = clearBytes + 8
    let payload = UnsafeRawBufferPointer(start: scratch + start, count: count - start - 16)
    guard let nonce = Self.nonce(sequence),
      let box = try? ChaChaPoly.seal(
        payload, using: key, nonce: nonce,
        authenticating: UnsafeRawBufferPointer(start: scratch, count: start))
    else { return false }
    box.ciphertext.withUnsafeBytes { copy($0, to: start) }
    box.tag.withUnsafeBytes { copy($0, to: count - 16) }
    at = 0
    for index in 0..<packet.pieceCount {
      let piece = packet.piece(index)
      piece.address.copyMemory(from: scratch + at, byteCount: piece.byteCount)
      at += piece.byteCount
    }
    sequence += 1
    return true
  }

  private func copy(_ bytes: UnsafeRawBufferPointer, to position: Int) {
    UnsafeMutableRawBufferPointer(start: scratch + position, count: bytes.count)
      .copyMemory(from: bytes)
  }

  /// Four bytes of zero, then the sequence number in network order.
  private static func nonce(_ sequence: UInt64) -> ChaChaPoly.Nonce? {
    let bytes = [0, 0, 0, 0] + (0..<8).map { UInt8(truncatingIfNeeded: sequence >> (56 - 8 * $0)) }
    return try? ChaChaPoly.Nonce(data: bytes)
  }

  /// The payload of a frame that was sealed; nil where it is not what was sealed.
  public static func open(_ frame: [UInt8], key: SymmetricKey, clearBytes: Int) -> [UInt8]? {
    guard frame.count >= clearBytes + overhead else { return nil }
    let start = clearBytes + 8
    let sequence = frame[clearBytes..<start].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    guard let nonce = nonce(sequence),
      let box = try? ChaChaPoly.SealedBox(
        nonce: nonce, ciphertext: frame[start..<frame.count - 16], tag: frame.suffix(16)),
      let payload = try? ChaChaPoly.open(box, using: key, authenticating: frame[..<start])
    else { return nil }
    return Array(payload)
  }
}
