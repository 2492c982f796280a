import CLinux
import Glibc

/// The descriptors of all memory that has a handle. One thread.
struct MemoryTable: ~Copyable {
  private struct Entry {
    var descriptor: Int32
    /// Open for writing, to cut the memory by; -1 where it cannot be taken away.
    var cutter: Int32
  }

  private var entries: [MemoryKey: Entry] = [:]

  deinit {
    for entry in entries.values {
      close(entry.descriptor)
      if entry.cutter >= 0 { close(entry.cutter) }
    }
  }

  /// Keeps a descriptor, or closes it where the memory is here already.
  mutating func adopt(_ descriptor: Int32, cutter: Int32?, as key: MemoryKey) {
    if entries[key] != nil {
      close(descriptor)
      if let cutter { close(cutter) }
    } else {
      entries[key] = Entry(descriptor: descriptor, cutter: cutter ?? -1)
    }
  }

  /// The memory's descriptor, which stays the table's.
  func descriptor(_ key: MemoryKey) throws(HandleRefusal) -> Int32 {
    guard let entry = entries[key] else { throw .kernel }
    return entry.descriptor
  }

  /// Takes revocable pages away, and closes what has no handle left.
  mutating func release(_ ended: EndedHandle) {
    let key = ended.handle.memory
    guard let entry = entries[key] else { return }
    if ended.handle.kind == .revocable { _ = ftruncate(entry.cutter, 0) }
    guard ended.isLastOfMemory else { return }
    close(entry.descriptor)
    if entry.cutter >= 0 { close(entry.cutter) }
    entries[key] = nil
  }

  /// Reads without a mapping: memory that is cut meanwhile gives less, never a signal.
  func read(_ key: MemoryKey, _ range: Range<UInt64>) throws(HandleRefusal) -> [UInt8] {
    let descriptor = try descriptor(key)
    var bytes = [UInt8](repeating: 0, count: range.count)
    guard pread(descriptor, &bytes, bytes.count, off_t(range.lowerBound)) == bytes.count else {
      throw .kernel
    }
    return bytes
  }

  func write(
    _ bytes: [UInt8], _ key: MemoryKey, at offset: UInt64, pageSize: UInt64
  ) throws(HandleRefusal) {
    let descriptor = try descriptor(key)
    if pageSize == 4096 {
      guard pwrite(descriptor, bytes, bytes.count, off_t(offset)) == bytes.count else {
        throw .kernel
      }
      return
    }
    // Huge pages cannot be written by descriptor. The pages from that of the first byte to that of the last are mapped.
    let start = offset / pageSize * pageSize
    let end = (offset + UInt64(bytes.count) + pageSize - 1) / pageSize * pageSize
    guard
      let mapped = linux_mmap(
        nil, Int(end - start), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, off_t(start))
    else { throw .kernel }
    defer { munmap(mapped, Int(end - start)) }
    guard linux_copy_checked(mapped + Int(offset - start), bytes, bytes.count) == bytes.count else {
      throw .kernel
    }
  }
}
