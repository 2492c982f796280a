import PCI
import Testing

/// 256 bytes of configuration space that a test writes.
final class BareFunction: PCIFunction {
  let name = "bare"
  var bytes = [UInt8](repeating: 0, count: 256)

  func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    (0..<width.rawValue).reduce(0) { value, index in
      value | UInt32(offset + index < 256 ? bytes[offset + index] : 0xff) << UInt32(8 * index)
    }
  }
  func writeConfiguration(
    _ value: UInt32, at offset: Int, width: RegisterWidth
  ) throws(PCIError) {
    for index in 0..<width.rawValue {
      bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt32(8 * index))
    }
  }
  func openRegion(bar: Int) throws(PCIError) -> RegisterRegion { throw .noRegion(bar: bar) }
  var interrupts: InterruptCapability {
    get throws(PCIError) { InterruptCapability(kind: .intx, vectors: 1) }
  }
  func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) throws(PCIError) {}
  func disableInterrupts(_ kind: InterruptKind) throws(PCIError) {}
  func unmaskINTx() throws(PCIError) {}
  func reset() throws(PCIError) {}

  /// A list of capabilities: where each begins, its id, and where it says that the next one is.
  func setList(_ first: UInt8, _ entries: [(at: Int, identifier: UInt8, next: UInt8)]) {
    bytes[0x06] = 0x10
    bytes[0x34] = first
    for entry in entries {
      bytes[entry.at] = entry.identifier
      bytes[entry.at + 1] = entry.next
    }
  }
}

@Suite struct CapabilityTests {
  @Test func theListIsWalkedInItsOrder() throws {
    let function = BareFunction()
    // Reserved low bits of links are masked.
    function.setList(0x83, [(0x80, 9, 0x41), (0x40, 0x11, 0)])
    let list = try function.capabilities()
    #expect(list.map(\.offset) == [0x80, 0x40])
    #expect(list.map(\.identifier) == [9, 0x11])
  }

  @Test func withoutTheStatusBitThereIsNoList() throws {
    let function = BareFunction()
    function.setList(0x40, [(0x40, 9, 0)])
    function.bytes[0x06] = 0
    let list = try function.capabilities()
    #expect(list.isEmpty)
  }

  @Test(
    arguments: [
      (0x40, 0x40), (0x50, 0x40), (0x44, 0x40),
    ] as [(UInt8, UInt8)]) func aListThatLoopsIsRefused(last: UInt8, back: UInt8)
  {
    let function = BareFunction()
    function.setList(0x40, [(0x40, 9, 0x44), (0x44, 9, 0x50), (0x50, 9, 0x40)])
    function.bytes[Int(last) + 1] = back
    #expect(throws: PCIError.self) { try function.capabilities() }
  }

  @Test(arguments: [0x04, 0x3c, 0x10] as [UInt8]) func anEntryInTheHeaderIsRefused(at: UInt8) {
    let function = BareFunction()
    function.setList(at, [])
    #expect(throws: PCIError.malformedCapability(at: Int(at), reason: "lies in the header")) {
      try function.capabilities()
    }
  }

  @Test func busMasteringGoesOnAndOffByItself() throws {
    let function = BareFunction()
    function.bytes[0x05] = 0x04
    try function.setBusMaster(true)
    #expect(function.bytes[0x04] == 0x06 && function.bytes[0x05] == 0x04)
    try function.setBusMaster(false)
    #expect(function.bytes[0x04] == 0x02)
  }
}

@Suite struct RegisterTests {
  @Test func windowsLieInsideTheirRegion() throws {
    let calls = RegisterCalls(
      context: UnsafeMutableRawPointer(bitPattern: 16)!, load: { _, _, offset, _ in offset },
      store: { _, _, _, _, _ in })
    let region = RegisterRegion(bar: 2, byteCount: 0x1000, calls: calls)
    for (offset, byteCount) in [
      (0x1000, 1), (0xfff, 2), (.max, 2), (0, 0x1001), (1, .max),
    ] as [(UInt64, UInt64)] {
      #expect(throws: PCIError.self) { _ = try region.window(at: offset, byteCount: byteCount) }
    }
    let window = try region.window(at: 0x100, byteCount: 0x100)
    #expect(window.read32(at: 8) == 0x108)
    let inner = try window.window(at: 0x80, byteCount: 0x80)
    #expect(inner.read16(at: 2) == 0x182)
    #expect(throws: PCIError.self) { _ = try window.window(at: 0x80, byteCount: 0x81) }
  }

  @Test func mappedPartsAreReadInPlace() throws {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0x5a, count: 64)
    let calls = RegisterCalls(
      context: memory, load: { _, _, _, _ in 0x11 }, store: { _, _, _, _, _ in })
    let region = RegisterRegion(
      bar: 0, byteCount: 0x1000, calls: calls,
      mapped: [.init(offset: 0x800, byteCount: 64, address: memory)])
    let mapped = try region.window(at: 0x810, byteCount: 16)
    mapped.write16(0x1234, at: 2)
    #expect(mapped.read32(at: 0) == 0x1234_5a5a)
    #expect(memory.load(fromByteOffset: 0x12, as: UInt16.self) == 0x1234)
    // Only partly mapped: by calls.
    let straddling = try region.window(at: 0x830, byteCount: 32)
    #expect(straddling.read8(at: 0) == 0x11)
  }
}
