import Channel

/// Descriptors that came with a message: those that nobody takes are closed.
struct ReceivedDescriptors: ~Copyable {
  private var descriptors: [Int32]
  private let closer: DescriptorCloser
  private let uid: UInt32

  init(_ descriptors: [Int32], of uid: UInt32, closer: DescriptorCloser) {
    self.descriptors = descriptors
    self.uid = uid
    self.closer = closer
  }

  deinit {
    for descriptor in descriptors where descriptor >= 0 { closer.close(descriptor, of: uid) }
  }

  var count: Int { descriptors.count }

  /// Stays this value's.
  subscript(index: Int) -> Int32 { descriptors[index] }

  /// The caller's from now on.
  mutating func take(_ index: Int) -> Int32 {
    defer { descriptors[index] = -1 }
    return descriptors[index]
  }
}
