/// Plain values one after the other, each kind from an address on that is a multiple of 16.
struct FlatMemory {
  private var bytes: [UInt8] = []

  var byteCount: Int { bytes.count }

  /// - Returns: bytes from the start.
  mutating func reserve<Value: BitwiseCopyable>(_: Value.Type, count: Int) -> Int {
    let place = (bytes.count + 15) & ~15
    let end = place + count * MemoryLayout<Value>.stride
    bytes.append(contentsOf: repeatElement(0, count: end - bytes.count))
    return place
  }

  /// - Returns: bytes from the start.
  @discardableResult
  mutating func append<Value: BitwiseCopyable>(_ value: Value) -> Int {
    let place = (bytes.count + 15) & ~15
    for _ in bytes.count..<place { bytes.append(0) }
    withUnsafeBytes(of: value) { bytes.append(contentsOf: $0) }
    return place
  }

  mutating func append<Value: BitwiseCopyable>(_ values: [Value]) -> Int {
    let place = reserve(Value.self, count: values.count)
    store(values, at: place)
    return place
  }

  /// - Parameter place: where so many of that kind were reserved.
  mutating func store<Value: BitwiseCopyable>(_ values: [Value], at place: Int) {
    let count = values.count * MemoryLayout<Value>.stride
    precondition(place >= 0 && place + count <= bytes.count)
    bytes.withUnsafeMutableBytes { all in
      values.withUnsafeBytes { new in
        if let start = all.baseAddress, let from = new.baseAddress {
          (start + place).copyMemory(from: from, byteCount: count)
        }
      }
    }
  }

  /// A copy of it all, which is the caller's to free.
  func allocate() -> UnsafeMutableRawPointer {
    let start = UnsafeMutableRawPointer.allocate(byteCount: bytes.count, alignment: 64)
    bytes.withUnsafeBytes { all in
      if let from = all.baseAddress { start.copyMemory(from: from, byteCount: all.count) }
    }
    return start
  }
}
