/// The receive half of the packet buffer: frames between the wire and the driver's buffers, in order of arrival.
struct PacketBuffer {
  struct Frame {
    /// What is stored: padded to 60 bytes, without VLAN tag where that is stripped, with CRC where it is not.
    var bytes: [UInt8]
    var queue: Int
    /// Fields of the last descriptor.
    var low: UInt64
    var status: UInt32
    var errors: UInt32
    var packetChecksum: UInt16
    var vlan: UInt16
    /// Bytes that lie in the driver's buffers already.
    var done = 0
    /// For the counters: bytes of the frame without CRC.
    var frameBytes: Int
  }

  private(set) var frames: [Frame] = []
  private(set) var byteCount = 0

  mutating func append(_ frame: Frame) {
    frames.append(frame)
    byteCount += frame.bytes.count
  }

  /// Progress of the first frame.
  var firstDone: Int {
    get { frames[0].done }
    set { frames[0].done = newValue }
  }

  mutating func removeFirst() {
    byteCount -= frames[0].bytes.count
    frames.removeFirst()
  }
}
