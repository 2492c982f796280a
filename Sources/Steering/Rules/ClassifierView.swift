/// A view of a ``Classifier``: a plain value. Any thread, as long as the classifier lives.
public struct ClassifierView: BitwiseCopyable, @unchecked Sendable {
  // Invariant: `start` points at what a classifier laid out: every offset in it lies within it, every row of rules ends
  // with one that is the last, every hashed group has an unused slot, and every word of a test or a hash is one of the
  // key's. None of it changes.
  let start: UnsafeRawPointer

  var header: UnsafePointer<ClassifierHeader> {
    start.assumingMemoryBound(to: ClassifierHeader.self)
  }

  /// Whether what a ``PacketHeader`` has is all that rules ask for: there are no protocols of one's own.
  public var asksForHeadersOnly: Bool { header.pointee.definitionCount == 0 }

  /// Most rules that are compared with one packet, whatever it is.
  public var steps: Int { Int(header.pointee.steps) }

  /// The rule that decides.
  /// - Parameters:
  ///   - packet: the frame's headers.
  ///   - frame: its first byte; read only where there are protocols of one's own, each byte of their fields once.
  ///   - byteCount: how many of its bytes are there.
  /// - Returns: its place in ``RuleSet/rules``, or -1 where none matches.
  public func match(_ packet: PacketHeader, frame: UnsafeRawPointer, byteCount: Int) -> Int {
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: PacketKey.maximumWords) { key in
      // Invariant: it has `maximumWords` words; those that a set does not use are not looked at.
      guard let words = key.baseAddress else { return -1 }
      write(packet, frame, byteCount, to: words)
      return find(UnsafePointer(words))
    }
  }

  /// A packet's key: all that is looked at from then on.
  @inline(__always)
  func write(
    _ packet: PacketHeader, _ frame: UnsafeRawPointer, _ byteCount: Int,
    to key: UnsafeMutablePointer<UInt64>
  ) {
    if header.pointee.definitionCount == 0 {
      PacketKey.write(packet, to: key)
    } else {
      walk(packet, frame, byteCount, key)
    }
  }

  @inline(__always)
  private func find(_ key: UnsafePointer<UInt64>) -> Int {
    let header = header
    let bytes = UnsafeRawPointer(key)
    var candidates = UInt64.max &>> UInt64(64 &- header.pointee.groupCount)
    if header.pointee.groupCount == 0 { return -1 }
    let summaries = (start + header.pointee.summaries).assumingMemoryBound(to: UInt64.self)
    var position = UnsafeRawPointer(header)
    var summary = summaries
    let end = summaries + Int(header.pointee.summaryCount) &* 256
    while summary < end {
      let byte = bytes.load(
        fromByteOffset: Int(position.load(as: UInt8.self)), as: UInt8.self)
      candidates &= summary[Int(byte)]
      summary += 256
      position += 1
    }
    let groups = (start + header.pointee.groups).assumingMemoryBound(to: ClassifierGroup.self)
    var best = UInt32.max
    var found = -1
    while candidates != 0 {
      let group = groups + candidates.trailingZeroBitCount
      // They come in the order of their first rules.
      if group.pointee.firstRank >= best { break }
      candidates &= candidates &- 1
      if group.pointee.partCount == 0 {
        search(start + group.pointee.slots, key, &best, &found)
      } else {
        probe(group, key, &best, &found)
      }
    }
    return found
  }

  @inline(__always)
  private func probe(
    _ group: UnsafePointer<ClassifierGroup>, _ key: UnsafePointer<UInt64>, _ best: inout UInt32,
    _ found: inout Int
  ) {
    let parts = (start + group.pointee.parts).assumingMemoryBound(to: ClassifierHashPart.self)
    var hash: UInt64 = 0
    for part in 0..<Int(group.pointee.partCount) {
      hash &+=
        (key[Int(truncatingIfNeeded: parts[part].word)] & parts[part].mask) &* parts[part].factor
    }
    let tag = UInt32(truncatingIfNeeded: hash &>> 32)
    let shift = group.pointee.shift
    let slots = (start + group.pointee.slots).assumingMemoryBound(to: ClassifierSlot.self)
    let mask = UInt32.max &>> shift
    var index = tag &>> shift
    while true {
      let slot = slots[Int(index)]
      if slot.rules == 0 { return }
      if slot.tag == tag {
        search(start + Int(slot.rules) &* 16, key, &best, &found)
        return
      }
      index = (index &+ 1) & mask
    }
  }

  /// Compares rules one after the other: they come in their order.
  @inline(__always)
  private func search(
    _ row: UnsafeRawPointer, _ key: UnsafePointer<UInt64>, _ best: inout UInt32, _ found: inout Int
  ) {
    var place = row
    while true {
      let rule = place.load(as: ClassifierRule.self)
      if rule.rank >= best { return }
      let tests = (place + 16).assumingMemoryBound(to: WordTest.self)
      var test = 0
      let count = Int(rule.testCount)
      while test < count && tests[test].holds(key) { test &+= 1 }
      if test == count {
        best = rule.rank
        found = Int(rule.index)
        return
      }
      if rule.isLast != 0 { return }
      place = UnsafeRawPointer(tests + count)
    }
  }
}
