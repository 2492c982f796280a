import CLinux
import Glibc
import Testing

@testable import Memory

@Suite struct ArenaTests {
  @Test func anArenaIsSharedByItsDescriptor() throws {
    let arena = try Arena(byteCount: 8192, pageSize: .ordinary, name: "test")
    let other = try Arena(adopting: dup(arena.descriptor), byteCount: 8192)
    arena.address.storeBytes(of: 42, toByteOffset: 5000, as: UInt8.self)
    #expect(other.address.load(fromByteOffset: 5000, as: UInt8.self) == 42)
    #expect(ftruncate(arena.descriptor, 4096) == -1)
  }

  @Test func memoryThatCanShrinkIsRefused() {
    let descriptor = linux_memfd_create("test", LINUX_MFD_ALLOW_SEALING)
    ftruncate(descriptor, 8192)
    #expect(error { _ = try Arena(adopting: descriptor, byteCount: 8192) } == .notSealed)
  }

  @Test func memoryThatIsTooSmallIsRefused() throws {
    let arena = try Arena(byteCount: 4096, pageSize: .ordinary, name: "test")
    let copy = dup(arena.descriptor)
    #expect(
      error { _ = try Arena(adopting: copy, byteCount: 8192) }
        == .tooSmall(byteCount: 4096, needed: 8192))
    #expect(
      error { _ = try Arena(adopting: dup(arena.descriptor), byteCount: -1) }
        == .tooSmall(byteCount: 4096, needed: -1))
  }

  @Test func sizesAreWholePages() {
    #expect(
      error { _ = try Arena(byteCount: 5000, pageSize: .ordinary, name: "test") }
        == .badSize(byteCount: 5000, pageSize: 4096))
    #expect(
      error { _ = try Arena(byteCount: 4096, pageSize: .huge2M, name: "test") }
        == .badSize(byteCount: 4096, pageSize: 2 << 20))
  }

  private func error(_ body: () throws -> Void) -> MemoryError? {
    do { try body() } catch { return error as? MemoryError }
    return nil
  }
}

@Suite struct DMAZoneTests {
  @Test func piecesAreAlignedZeroedAndInside() throws {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 8192, alignment: 4096)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0xff, count: 8192)
    var zone = DMAZone(DMARange(address: memory, iova: 0x1000, byteCount: 8192))
    let first = zone.allocate(byteCount: 10, alignment: 1)
    let second = zone.allocate(byteCount: 64, alignment: 256)
    #expect(first?.iova == 0x1000 && second?.iova == 0x1100)
    #expect(UnsafeRawBufferPointer(start: second?.address, count: 64).allSatisfy { $0 == 0 })
    let tooMuch = zone.allocate(byteCount: 8192, alignment: 1)
    #expect(tooMuch?.iova == nil)
  }
}

@Suite struct DescriptorTests {
  @Test func offloadsSurviveTheirSlot() {
    for segmentation in [Offload.Segmentation.none, .tcp4, .udp, .tcp6] {
      let offload = Offload(
        segmentation: segmentation, needsChecksum: true, headerLength: 0xfedc, segmentSize: 0x1234,
        checksumStart: 0xabcd, checksumOffset: 0x4321, tag: 7)
      #expect(Offload(offload.slot) == offload)
    }
    #expect(Offload(Descriptor(segment: 0)) == nil)
    #expect(Offload(Descriptor(segment: 0, length: 2 << 16, flags: .offload)) == nil)
  }

  @Test func positionsDoNotOverflow() {
    let last = Descriptor(segment: .max, offset: .max, length: .max)
    #expect(last.position == UInt64(UInt32.max) * 1024 + UInt64(UInt32.max))
    #expect(MemoryLayout<Descriptor>.size == 16)
  }
}
