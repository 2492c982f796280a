/// The address space of an emulated function: what was mapped for it, and a record of every access to what was not.
/// One thread, the model's.
public final class CheckedIOMMU {
  /// An access that no mapping allows.
  public struct Fault: Equatable, Sendable {
    public var iova: UInt64
    public var byteCount: Int
    public var isWrite: Bool
  }

  public struct Rights: OptionSet, Sendable {
    public var rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let read = Rights(rawValue: 1)
    public static let write = Rights(rawValue: 2)
  }

  struct Mapping {
    var iova: UInt64
    var byteCount: UInt64
    // Invariant: where set, points at `byteCount` bytes that stay mapped until `unmap`.
    var address: UnsafeMutableRawPointer?
    var rights: Rights
    /// The last byte's address: never wraps.
    var last: UInt64 { iova + (byteCount - 1) }
  }

  /// Memory that is reached by messages, where a client gave no descriptor.
  public protocol Messages: AnyObject {
    func read(_ iova: UInt64, into bytes: UnsafeMutableRawBufferPointer) -> Bool
    func write(_ iova: UInt64, from bytes: UnsafeRawBufferPointer) -> Bool
  }

  /// Ascending, not overlapping.
  private var mappings: [Mapping] = []
  private var lastHit = 0
  public weak var messages: (any Messages)?
  /// Grows with every change of the mappings: pointers from before are then void.
  public private(set) var generation: UInt64 = 0
  /// The first 64 faults; `faultCount` counts all.
  public private(set) var faults: [Fault] = []
  public private(set) var faultCount = 0
  /// While bus mastering is off, every access is a fault.
  public var isBusMaster = false

  public init() {}

  public enum MapError: Error, Equatable, Sendable { case wraps, overlaps, empty, tooMany }

  /// Mappings at most; a client that asks for more is refused.
  public static let maximumMappings = 65536

  public func map(
    iova: UInt64, byteCount: UInt64, address: UnsafeMutableRawPointer?, rights: Rights
  ) throws(MapError) {
    if byteCount == 0 { throw .empty }
    if iova.addingReportingOverflow(byteCount - 1).overflow { throw .wraps }
    if mappings.count >= Self.maximumMappings { throw .tooMany }
    let index = position(of: iova)
    let new = Mapping(iova: iova, byteCount: byteCount, address: address, rights: rights)
    if index > 0 && mappings[index - 1].last >= iova { throw .overlaps }
    if index < mappings.count && mappings[index].iova <= new.last { throw .overlaps }
    mappings.insert(new, at: index)
    lastHit = 0
    generation += 1
  }

  /// Removes the mappings that lie wholly inside a range.
  /// - Returns: what was removed, as (iova, bytes, address); nil where the range cuts a mapping: nothing is removed.
  public func unmap(
    iova: UInt64, byteCount: UInt64
  ) -> [(iova: UInt64, byteCount: UInt64, address: UnsafeMutableRawPointer?)]? {
    if byteCount == 0 { return [] }
    let (last, overflow) = iova.addingReportingOverflow(byteCount - 1)
    let end = overflow ? UInt64.max : last
    for mapping in mappings where mapping.iova <= end && mapping.last >= iova {
      if mapping.iova < iova || mapping.last > end { return nil }
    }
    let removed = mappings.filter { $0.iova >= iova && $0.last <= end }
    mappings.removeAll { $0.iova >= iova && $0.last <= end }
    lastHit = 0
    if !removed.isEmpty { generation += 1 }
    return removed.map { ($0.iova, $0.byteCount, $0.address) }
  }

  /// Removes every mapping.
  public func unmapAll() {
    if !mappings.isEmpty { generation += 1 }
    mappings = []
    lastHit = 0
  }

  public var mappingCount: Int { mappings.count }

  public func clearFaults() {
    faults = []
    faultCount = 0
  }

  /// Direct access to `byteCount` bytes that lie in one mapping with memory behind it.
  /// - Returns: nil where they do not, and that is a fault unless the bytes can be reached by ``read(_:into:)`` or
  ///   ``write(_:from:)``.
  public func pointer(
    _ iova: UInt64, byteCount: Int, _ rights: Rights
  ) -> UnsafeMutableRawPointer? {
    guard let mapping = find(iova, byteCount, rights) else {
      fault(iova, byteCount, rights)
      return nil
    }
    return mapping.address.map { $0 + Int(iova - mapping.iova) }
  }

  /// Copies from the function's address space, across mappings and by message where need be.
  public func read(_ iova: UInt64, into bytes: UnsafeMutableRawBufferPointer) -> Bool {
    forEachPiece(iova, bytes.count, .read) { piece, address, offset, count in
      let target = UnsafeMutableRawBufferPointer(rebasing: bytes[offset..<offset + count])
      if let address {
        target.copyMemory(from: UnsafeRawBufferPointer(start: address, count: count))
        return true
      }
      return messages?.read(piece, into: target) ?? false
    }
  }

  public func write(_ iova: UInt64, from bytes: UnsafeRawBufferPointer) -> Bool {
    forEachPiece(iova, bytes.count, .write) { piece, address, offset, count in
      let source = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
      if let address {
        UnsafeMutableRawBufferPointer(start: address, count: count).copyMemory(from: source)
        return true
      }
      return messages?.write(piece, from: source) ?? false
    }
  }

  /// Whether an access would be allowed; no fault is recorded.
  public func allows(_ iova: UInt64, byteCount: Int, _ rights: Rights) -> Bool {
    guard isBusMaster else { return false }
    var at = iova
    var left = UInt64(byteCount)
    while left > 0 {
      guard let mapping = covering(at), mapping.rights.contains(rights) else { return false }
      let count = min(left, mapping.last - at + 1)
      left -= count
      if left == 0 { return true }
      let (next, overflow) = at.addingReportingOverflow(count)
      if overflow { return false }
      at = next
    }
    return true
  }

  private func forEachPiece(
    _ iova: UInt64, _ byteCount: Int, _ rights: Rights,
    _ body: (UInt64, UnsafeMutableRawPointer?, Int, Int) -> Bool
  ) -> Bool {
    guard allows(iova, byteCount: byteCount, rights) else {
      fault(iova, byteCount, rights)
      return false
    }
    var done = 0
    while done < byteCount {
      let at = iova + UInt64(done)
      guard let mapping = covering(at) else { return false }
      let count = Int(min(UInt64(byteCount - done), mapping.last - at + 1))
      let address = mapping.address.map { $0 + Int(at - mapping.iova) }
      if !body(at, address, done, count) { return false }
      done += count
    }
    return true
  }

  private func find(_ iova: UInt64, _ byteCount: Int, _ rights: Rights) -> Mapping? {
    guard isBusMaster, let mapping = covering(iova), mapping.rights.contains(rights),
      UInt64(byteCount) <= mapping.last - iova + 1
    else { return nil }
    return mapping
  }

  private func covering(_ iova: UInt64) -> Mapping? {
    if lastHit < mappings.count {
      let mapping = mappings[lastHit]
      if iova >= mapping.iova && iova <= mapping.last { return mapping }
    }
    let index = position(of: iova)
    // The mapping that begins at or before the address.
    let candidate = index < mappings.count && mappings[index].iova == iova ? index : index - 1
    guard candidate >= 0, mappings[candidate].last >= iova else { return nil }
    lastHit = candidate
    return mappings[candidate]
  }

  /// The first mapping that does not begin before the address.
  private func position(of iova: UInt64) -> Int {
    var low = 0
    var high = mappings.count
    while low < high {
      let middle = (low + high) / 2
      if mappings[middle].iova < iova { low = middle + 1 } else { high = middle }
    }
    return low
  }

  private func fault(_ iova: UInt64, _ byteCount: Int, _ rights: Rights) {
    faultCount += 1
    if faults.count < 64 {
      faults.append(Fault(iova: iova, byteCount: byteCount, isWrite: rights.contains(.write)))
    }
  }
}
