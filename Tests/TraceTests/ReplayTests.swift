import CLinux
import EduDevice
import EmulatedPCI
import Glibc
import PCI
import Testing

@testable import Trace

/// Recorder and replayer by bare accesses, against traces that are written down here.
struct ReplayTests {
  let memory = TestMemory(iova: 0x1000, byteCount: 64)

  func replay(_ lines: String) throws -> ReplayedFunction {
    try ReplayedFunction(
      try Trace(text: "martlet-trace 1\nbar 0 0x1000\n" + lines), memory: [memory.range])
  }

  @Test func repeatedReadsAreCounted() throws {
    let lines = "r4 0 0x0010 0x00000001 x3\nr4 0 0x0010 0x00000002\n"
    let function = try replay(lines)
    let registers = try function.openRegion(bar: 0).window(at: 0x10, byteCount: 16)
    #expect((0..<4).map { _ in registers.read32(at: 0) } == [1, 1, 1, 2])
    try function.finish()
    // One too many, and one too few.
    #expect(registers.read32(at: 0) == .max)
    #expect(function.divergence == .init(line: 4, expected: nil, got: "r4 0 0x0010"))
    let other = try replay(lines)
    let again = try other.openRegion(bar: 0).window(at: 0x10, byteCount: 16)
    _ = again.read32(at: 0)
    _ = again.read32(at: 0)
    #expect(throws: ReplayedFunction.Divergence.self) { try other.finish() }
    #expect(
      other.divergence == .init(line: 3, expected: "r4 0 0x0010 0x00000001 x3", got: nil))
  }

  @Test(arguments: ["w2 0 0x0010 0x0005", "w4 0 0x0014 0x00000005", "w4 0 0x0010 0x00000006"])
  func widthOffsetAndValueMatter(line: String) throws {
    let function = try replay(line + "\n")
    try function.openRegion(bar: 0).window(at: 0, byteCount: 32).write32(5, at: 0x10)
    #expect(
      function.divergence == .init(line: 3, expected: line, got: "w4 0 0x0010 0x00000005"))
    // Gone since.
    #expect(throws: PCIError.gone("replayed")) { try function.reset() }
  }

  /// What is the device's comes at once; what may be either side's, with the next access.
  @Test func memoryChangesWhereItDid() throws {
    let function = try replay(
      """
      mem 0x1000 01
      w1 0 0x0000 0x01
      dma 0x1004 02
      mem 0x1008 03
      w1 0 0x0000 0x02
      mem 0x100c 04

      """)
    let registers = try function.openRegion(bar: 0).window(at: 0, byteCount: 32)
    func seen() -> [UInt8] { [0, 4, 8, 12].map { memory.bytes($0..<$0 + 1)[0] } }
    #expect(seen() == [0, 0, 0, 0])
    registers.write8(1, at: 0)
    #expect(seen() == [1, 2, 0, 0])
    registers.write8(2, at: 0)
    #expect(seen() == [1, 2, 3, 0])
    try function.finish()
    #expect(seen() == [1, 2, 3, 4])
  }

  @Test func anInterruptComesAfterItsMemory() throws {
    let function = try replay(
      """
      enable msix -+
      w1 0 0x0000 0x01
      mem 0x1000 01
      irq 1
      disable msix

      """)
    let fired = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(fired) }
    func signals() -> UInt64 {
      var count: UInt64 = 0
      return read(fired, &count, 8) == 8 ? count : 0
    }
    let registers = try function.openRegion(bar: 0).window(at: 0, byteCount: 32)
    try function.enableInterrupts(.msix, eventfds: [-1, fired])
    #expect(signals() == 0)
    registers.write8(1, at: 0)
    #expect(signals() == 1 && memory.bytes(0..<1) == [1])
    function.interruptTaken(fired)
    try function.disableInterrupts(.msix)
    try function.finish()
  }

  @Test func onlyReadsAreWrittenTogether() throws {
    var text = ""
    let device = EduDevice()
    let function = RecordingFunction(InProcessFunction(device)) { text += $0 }
    let registers = try function.openRegion(bar: 0).window(at: 0, byteCount: 32)
    for _ in 0..<2 {
      registers.write32(1, at: 4)
      registers.write32(1, at: 4)
      _ = registers.read32(at: 4)
      _ = registers.read32(at: 4)
      function.mark("here")
      function.mark("here")
    }
    function.finish()
    let once = """
      w4 0 0x0004 0x00000001
      w4 0 0x0004 0x00000001
      r4 0 0x0004 0xfffffffe x2
      mark here
      mark here

      """
    #expect(text == "martlet-trace 1\nbar 0 0x100000\n" + once + once)
  }

  /// A device that writes between the recorder's look and the driver's.
  @Test func whatCameInTheLastMomentIsRecordedBeforeTheLook() throws {
    var text = ""
    let function = RecordingFunction(
      InProcessFunction(EduDevice()), memory: [TracedMemory("rings", memory.range)]
    ) { text += $0 }
    func look(_ number: UInt8) {
      function.mark("look")
      memory.range.address.storeBytes(of: number, as: UInt8.self)
      function.outcome("came \(number)")
    }
    // It may as well be the driver's own.
    look(1)
    function.mark("look")
    look(2)
    // Nothing was found, so that it came later.
    function.mark("look")
    memory.range.address.storeBytes(of: 3, as: UInt8.self)
    function.mark("look")
    look(4)
    // The driver has taken what there was: there is more.
    look(5)
    function.finish()
    #expect(
      text == """
        martlet-trace 1
        map 0x1000 0x40 rings
        mark look
        mem 0x1000 01
        mark came 1
        mark look
        mem 0x1000 02
        mark look
        mark came 2
        mark look
        mem 0x1000 03
        mark look
        mem 0x1000 04
        mark look
        mark came 4
        mem 0x1000 05
        mark look
        mark came 5

        """)
  }

  @Test func onlyWatchedMemoryIsWrittenDown() throws {
    var text = ""
    let other = TestMemory(iova: 0x2000, byteCount: 64)
    let function = RecordingFunction(
      InProcessFunction(EduDevice()),
      memory: [
        TracedMemory("rings", memory.range), TracedMemory("arena", other.range, watch: .parts),
      ]
    ) { text += $0 }
    for (offset, byte) in [(0, 1), (8, 2), (40, 3)] as [(Int, UInt8)] {
      memory.range.address.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
    }
    other.range.address.storeBytes(of: 7, as: UInt8.self)
    function.mark("one")
    // Back to nothing is a change too.
    memory.range.address.storeBytes(of: 0, toByteOffset: 40, as: UInt8.self)
    function.mark("two")
    function.finish()
    #expect(
      text == """
        martlet-trace 1
        map 0x1000 0x40 rings
        map 0x2000 0x40 arena
        mem 0x1000 010000000000000002
        mem 0x1028 03
        mark one
        mem 0x1028 00
        mark two

        """)
  }
}
