// swift-format-ignore-file: AlwaysUseLowerCamelCase

// In a copy of a driver these hide what writes to memory and registers there, and send it through WeakMemory.
import Memory
import PCI
import WeakMemory

@usableFromInline func relaxed_store16(_ address: UnsafeMutableRawPointer, _ value: UInt16) {
  WeakMemory.store(UInt64(value), 2, at: address)
}
@usableFromInline func relaxed_store32(_ address: UnsafeMutableRawPointer, _ value: UInt32) {
  WeakMemory.store(UInt64(value), 4, at: address)
}
@usableFromInline func relaxed_store64(_ address: UnsafeMutableRawPointer, _ value: UInt64) {
  WeakMemory.store(value, 8, at: address)
}
@usableFromInline func release_store16(_ address: UnsafeMutableRawPointer, _ value: UInt16) {
  WeakMemory.storeReleasing(UInt64(value), 2, at: address)
}
@usableFromInline func release_fence() { WeakMemory.fence() }
@usableFromInline func full_fence() { WeakMemory.fence() }

extension DMARange {
  @usableFromInline func store8(_ value: UInt8, at offset: Int) {
    precondition(offset >= 0 && offset < byteCount)
    WeakMemory.store(UInt64(value), 1, at: address + offset)
  }
  @usableFromInline func store32(_ value: UInt32, at offset: Int) {
    precondition(offset >= 0 && offset + 4 <= byteCount)
    WeakMemory.store(UInt64(value), 4, at: address + offset)
  }
  @usableFromInline func store64(_ value: UInt64, at offset: Int) {
    precondition(offset >= 0 && offset + 8 <= byteCount)
    WeakMemory.store(value, 8, at: address + offset)
  }
}

extension RegisterWindow {
  func write16(_ value: UInt16, at offset: Int) {
    WeakMemory.writeRegister { writeAsItIs(value, at: offset) }
  }
  func write32(_ value: UInt32, at offset: Int) {
    WeakMemory.writeRegister { writeAsItIs(value, at: offset) }
  }
}
