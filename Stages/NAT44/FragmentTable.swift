/// Where the later fragments of received packets go, of which only the first has ports (RFC 791, 3.2). The oldest makes
/// way for the newest.
struct FragmentTable {
  private struct Entry {
    var remote: UInt32 = 0
    var identification: UInt16 = 0
    var transport: UInt8 = 0
    var address: UInt32 = 0
    var expires: UInt64 = 0
  }

  private var entries = [Entry](repeating: Entry(), count: 64)
  private var next = 0
  /// As long as a receiver keeps them at least (RFC 1122, 3.3.2).
  private static let time: UInt64 = 60 * 1_000_000_000

  mutating func note(
    remote: UInt32, _ identification: UInt16, _ transport: UInt8, isFor address: UInt32,
    at now: UInt64
  ) {
    entries[next] = Entry(
      remote: remote, identification: identification, transport: transport, address: address,
      expires: now + Self.time)
    next = (next + 1) % entries.count
  }

  /// The address inside; nil where the first fragment has not been seen.
  func find(
    remote: UInt32, _ identification: UInt16, _ transport: UInt8, at now: UInt64
  ) -> UInt32? {
    // The newest first: numbers come again.
    for step in 1...entries.count {
      let entry = entries[(next + entries.count - step) % entries.count]
      if entry.expires > now, entry.remote == remote, entry.identification == identification,
        entry.transport == transport
      {
        return entry.address
      }
    }
    return nil
  }
}
