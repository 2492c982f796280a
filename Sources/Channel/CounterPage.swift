import CLinux
import Memory

/// Named counters in shared memory: written by one process with plain stores, read by others without disturbing it.
///
/// Names follow DPDK's xstats grammar, such as rx_q0_packets. Layout: magic, version and count in the first 64 bytes,
/// then 64 bytes for each counter: its value, then its name, ended by a zero. Histograms may lie behind the counters
/// (``HistogramLayout``).
public struct CounterPage: ~Copyable, @unchecked Sendable {
  // Invariant: the arena holds `count` entries behind its first 64 bytes, and `histogramCount` histograms behind them.
  private let arena: Arena
  public let count: Int
  public let histogramCount: Int
  private static let magic: UInt32 = 0x4e43_524d  // "MRCN"

  public var descriptor: Int32 { arena.descriptor }

  /// A descriptor of the same page by which it can be read only (``/Memory/Arena/makeReadOnlyDescriptor()``); the
  /// caller's to close.
  public func makeReadOnlyDescriptor() throws(MemoryError) -> Int32 {
    try arena.makeReadOnlyDescriptor()
  }

  private static func bytes(_ count: Int, _ histograms: Int) -> Int {
    (64 + count * 64 + histograms * HistogramLayout.byteCount + 4095) / 4096 * 4096
  }

  /// Makes a page with room for `capacity` counters and some histograms; its writer names them.
  public init(capacity: Int, histograms: Int = 0) throws(MemoryError) {
    count = capacity
    histogramCount = histograms
    arena = try Arena(
      byteCount: Self.bytes(capacity, histograms), pageSize: .ordinary, name: "martlet-counters")
    arena.address.storeBytes(of: Self.magic, as: UInt32.self)
  }

  /// Maps a page that came from another process. The descriptor is the page's from now on.
  /// - Parameters:
  ///   - capacity: counters in it.
  ///   - histograms: histograms in it.
  public init(
    adopting descriptor: Int32, capacity: Int, histograms: Int = 0, writable: Bool
  ) throws(MemoryError) {
    count = capacity
    histogramCount = histograms
    arena = try Arena(
      adopting: descriptor, byteCount: Self.bytes(capacity, histograms), writable: writable)
  }

  /// Names a counter, which is 0 then; without a name it is not shown. Names longer than 55 bytes are cut.
  public func name(_ index: Int, _ name: String) {
    precondition(index >= 0 && index < count)
    let entry = arena.address + 64 + index * 64
    relaxed_store64(entry, 0)
    Self.write(name, to: entry + 8, room: 56)
  }

  private static func write(_ name: String, to place: UnsafeMutableRawPointer, room: Int) {
    var at = 0
    for byte in name.utf8.prefix(room - 1) {
      place.storeBytes(of: byte, toByteOffset: at, as: UInt8.self)
      at += 1
    }
    place.storeBytes(of: 0, toByteOffset: at, as: UInt8.self)
  }

  /// What another process wrote as a name is not trusted: only letters, digits and underscores are taken.
  private static func readName(at place: UnsafeMutableRawPointer, room: Int) -> String {
    var name: [UInt8] = []
    for at in 0..<room {
      let byte = volatile_load8(place + at)
      let isLetter = byte >= 97 && byte <= 122
      let isDigit = byte >= 48 && byte <= 57
      guard isLetter || isDigit || byte == 95 else { break }
      name.append(byte)
    }
    return String(decoding: name, as: UTF8.self)
  }

  /// Adds to a counter that several threads have in common; what is taken away wraps round.
  public func add(_ index: Int, _ change: UInt64) {
    precondition(index >= 0 && index < count)
    _ = atomic_add64(arena.address + 64 + index * 64, change)
  }

  public func set(_ index: Int, _ value: UInt64) {
    precondition(index >= 0 && index < count)
    relaxed_store64(arena.address + 64 + index * 64, value)
  }

  /// One counter's value.
  public func value(_ index: Int) -> UInt64 {
    precondition(index >= 0 && index < count)
    return relaxed_load64(arena.address + 64 + index * 64)
  }

  /// The values of the first `end` counters.
  public func values(upTo end: Int) -> [UInt64] { (0..<end).map { value($0) } }

  /// All counters that have a name.
  public func read() -> [(name: String, value: UInt64)] {
    var result: [(String, UInt64)] = []
    for index in 0..<count {
      let entry = arena.address + 64 + index * 64
      let name = Self.readName(at: entry + 8, room: 56)
      if !name.isEmpty { result.append((name, relaxed_load64(entry))) }
    }
    return result
  }

  // MARK: Histograms

  private func histogram(_ index: Int) -> UnsafeMutableRawPointer {
    precondition(index >= 0 && index < histogramCount)
    return arena.address + 64 + count * 64 + index * HistogramLayout.byteCount
  }

  /// Names histograms and hands them to who counts in them. What they have counted stays. The page must outlive the writer.
  /// - Parameter first: the number of the first.
  public func histogramWriter(_ first: Int, named names: [String]) -> HistogramWriter {
    for (index, name) in names.enumerated() {
      Self.write(name, to: histogram(first + index) + 16, room: 48)
    }
    return HistogramWriter(base: histogram(first), count: names.count)
  }

  /// All histograms that have a name. What they have counted is another process's word.
  public func readHistograms() -> [HistogramReading] {
    (0..<histogramCount).compactMap { index in
      let base = histogram(index)
      let name = Self.readName(at: base + 16, room: 48)
      if name.isEmpty { return nil }
      let counts = base + HistogramLayout.headerBytes
      return HistogramReading(
        name: name, sum: relaxed_load64(base), highest: relaxed_load64(base + 8),
        counts: (0..<HistogramLayout.counts).map { relaxed_load64(counts + $0 * 8) })
    }
  }
}
