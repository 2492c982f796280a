import CPcap

/// The frames of capture files, each once, whatever their link layer: what is no Ethernet is a hostile frame.
struct CaptureFrames {
  private(set) var frames: [[UInt8]] = []
  private(set) var files = 0
  /// Files that libpcap does not read: some are broken on purpose.
  private(set) var unreadable = 0

  /// - Parameters:
  ///   - paths: of capture files.
  ///   - maximum: so many frames at most.
  init(_ paths: [String], maximum: Int) {
    var seen: Set<[UInt8]> = []
    // Something of each file, however large others are.
    let share = max(20, 4 * maximum / max(1, paths.count))
    for path in paths where frames.count < maximum {
      let end = min(maximum, frames.count + share)
      var message = [CChar](repeating: 0, count: Int(PCAP_ERRBUF_SIZE))
      guard let file = pcap_open_offline(path, &message) else {
        unreadable += 1
        continue
      }
      defer { pcap_close(file) }
      files += 1
      var header: UnsafeMutablePointer<pcap_pkthdr>?
      var bytes: UnsafePointer<UInt8>?
      while frames.count < end, pcap_next_ex(file, &header, &bytes) == 1 {
        guard let header, let bytes else { break }
        // More than the first bytes is not looked at, and need not be kept.
        let frame = Array(
          UnsafeBufferPointer(start: bytes, count: min(256, Int(header.pointee.caplen))))
        if seen.insert(frame).inserted { frames.append(frame) }
      }
    }
  }
}
