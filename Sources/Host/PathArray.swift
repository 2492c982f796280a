/// The paths of a host, one for each queue pair. Owns them.
@usableFromInline
struct PathArray<Path: QueuePath & ~Copyable>: ~Copyable {
  // Invariant: the first `count` elements of `elements` are initialised; room for `capacity`.
  @usableFromInline let elements: UnsafeMutablePointer<Path>
  private let capacity: Int
  @usableFromInline var count = 0

  init(capacity: Int) {
    elements = .allocate(capacity: capacity)
    self.capacity = capacity
  }

  @inlinable
  deinit {
    elements.deinitialize(count: count)
    elements.deallocate()
  }

  mutating func append(_ path: consuming Path) {
    precondition(count < capacity)
    (elements + count).initialize(to: path)
    count += 1
  }

  @inlinable
  subscript(index: Int) -> Path {
    _read {
      precondition(index >= 0 && index < count)
      yield elements[index]
    }
    nonmutating _modify {
      precondition(index >= 0 && index < count)
      yield &elements[index]
    }
  }
}
