import Memory

/// Tags of packets that a host before this one had taken and not completed. Nobody has them any more, and each is completed
/// once. One thread.
@usableFromInline
struct OrphanedTags: ~Copyable, @unchecked Sendable {
  // Invariant: the first `count` elements of `tags` are initialised.
  @usableFromInline let tags: UnsafeMutablePointer<UInt16>
  /// How many are left.
  @usableFromInline private(set) var count: Int

  init(_ tags: [UInt16]) {
    count = tags.count
    self.tags = .allocate(capacity: max(1, count))
    self.tags.initialize(from: tags, count: count)
  }

  @inlinable
  deinit { tags.deallocate() }

  @inlinable var isEmpty: Bool { count == 0 }

  /// Appends slots with as many of them as there is room for.
  /// - Parameter room: slots to leave free.
  @usableFromInline
  mutating func move(into completed: inout Burst, leaving room: Int = 0) {
    while count > 0 && completed.room > room {
      count &-= 1
      completed.append(Descriptor(segment: 0, tag: tags[count]))
    }
  }
}
