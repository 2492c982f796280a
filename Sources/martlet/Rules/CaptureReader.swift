import CPcap
import Glibc

/// A frame of a capture file.
struct CapturedFrame {
  /// Those that were captured.
  var bytes: [UInt8]
  /// Nanoseconds since 1970.
  var time: UInt64
  /// As many as there were.
  var byteCount: Int
}

/// Frames of a capture file.
enum CaptureReader {
  /// - Throws: where it is none, or not of Ethernet.
  static func frames(of path: String) throws -> [CapturedFrame] {
    var message = [CChar](repeating: 0, count: Int(PCAP_ERRBUF_SIZE))
    guard
      let file = pcap_open_offline_with_tstamp_precision(
        path, UInt32(PCAP_TSTAMP_PRECISION_NANO), &message)
    else {
      throw CommandFailure(code: 1, text: text(message))
    }
    defer { pcap_close(file) }
    guard pcap_datalink(file) == DLT_EN10MB else {
      let name = pcap_datalink_val_to_name(pcap_datalink(file)).map { String(cString: $0) }
      throw CommandFailure(
        code: 1, text: "\(path): its packets are \(name ?? "of an unknown kind"), not of Ethernet")
    }
    var frames: [CapturedFrame] = []
    var header: UnsafeMutablePointer<pcap_pkthdr>?
    var bytes: UnsafePointer<UInt8>?
    while true {
      switch pcap_next_ex(file, &header, &bytes) {
      case 1:
        guard let header, let bytes else { continue }
        let time = header.pointee.ts
        frames.append(
          CapturedFrame(
            bytes: Array(UnsafeBufferPointer(start: bytes, count: Int(header.pointee.caplen))),
            time: UInt64(max(0, time.tv_sec)) * 1_000_000_000 + UInt64(max(0, time.tv_usec)),
            byteCount: Int(header.pointee.len)))
      case PCAP_ERROR_BREAK: return frames
      default:
        throw CommandFailure(
          code: 1, text: "\(path): \(String(cString: pcap_geterr(file)))")
      }
    }
  }

  private static func text(_ message: [CChar]) -> String {
    String(decoding: message.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
