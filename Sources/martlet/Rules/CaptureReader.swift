import CPcap
import Glibc

/// Frames of a capture file.
enum CaptureReader {
  /// - Throws: where it is none, or not of Ethernet.
  static func frames(of path: String) throws -> [[UInt8]] {
    var message = [CChar](repeating: 0, count: Int(PCAP_ERRBUF_SIZE))
    guard let file = pcap_open_offline(path, &message) else {
      throw CommandFailure(code: 1, text: text(message))
    }
    defer { pcap_close(file) }
    guard pcap_datalink(file) == DLT_EN10MB else {
      let name = pcap_datalink_val_to_name(pcap_datalink(file)).map { String(cString: $0) }
      throw CommandFailure(
        code: 1, text: "\(path): its packets are \(name ?? "of an unknown kind"), not of Ethernet")
    }
    var frames: [[UInt8]] = []
    var header: UnsafeMutablePointer<pcap_pkthdr>?
    var bytes: UnsafePointer<UInt8>?
    while true {
      switch pcap_next_ex(file, &header, &bytes) {
      case 1:
        guard let header, let bytes else { continue }
        frames.append(
          Array(UnsafeBufferPointer(start: bytes, count: Int(header.pointee.caplen))))
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
