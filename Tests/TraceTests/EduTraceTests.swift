import CLinux
import Driver
import Edu
import EduDevice
import EmulatedPCI
import Glibc
import Memory
import PCI
import Testing

@testable import Trace

/// Memory for a device, at an IOVA, zeroed.
final class TestMemory {
  let range: DMARange

  init(iova: UInt64, byteCount: Int) {
    range = DMARange(
      address: .allocate(byteCount: byteCount, alignment: 4096), iova: iova, byteCount: byteCount)
    range.address.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
  }

  deinit { range.address.deallocate() }

  func bytes(_ part: Range<Int>) -> [UInt8] {
    Array(UnsafeRawBufferPointer(start: range.address + part.lowerBound, count: part.count))
  }
}

/// What a host does with Edu: a factorial, a transfer each way, each with its interrupt.
struct EduRun {
  var number: UInt32 = 12
  var byteCount = Edu.maximumTransfer
  var takesInterrupts = true

  struct Outcome: Equatable {
    var factorial: UInt32
    var reasons: [UInt32]
    var copied: [UInt8]
  }

  func callAsFunction(_ function: any TracedFunction, _ memory: TestMemory) throws -> Outcome {
    let fired = eventfd(0, Int32(EFD_NONBLOCK))
    defer { close(fired) }
    for index in 0..<byteCount {
      memory.range.address.storeBytes(
        of: UInt8(truncatingIfNeeded: index &* 31 &+ 7), toByteOffset: index, as: UInt8.self)
    }
    var reasons: [UInt32] = []
    var driver = try Edu(
      DriverResources(
        function: function, rings: DMAZone(memory.range), arena: memory.range,
        interrupts: InterruptPlan(configuration: -1, queues: [fired])))
    try driver.start()
    func takeInterrupt(_ driver: borrowing Edu) throws {
      var entry = pollfd(fd: fired, events: Int16(POLLIN), revents: 0)
      _ = poll(&entry, 1, 1000)
      var count: UInt64 = 0
      guard takesInterrupts, read(fired, &count, 8) == 8 else { return }
      function.interruptTaken(fired)
      reasons.append(try driver.takeInterrupt())
    }
    let factorial = try driver.factorial(of: number)
    try takeInterrupt(driver)
    try driver.copyToDevice(memory.range.part(at: 0, byteCount: byteCount)!, at: 512)
    try takeInterrupt(driver)
    try driver.copyFromDevice(memory.range.part(at: 4096, byteCount: byteCount)!, at: 512)
    try takeInterrupt(driver)
    driver.stop()
    return Outcome(
      factorial: factorial, reasons: reasons, copied: memory.bytes(4096..<4096 + byteCount))
  }

  var expected: Outcome {
    Outcome(
      factorial: 479_001_600, reasons: [0x001, 0x100, 0x100],
      copied: (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ 7) })
  }
}

/// A run of Edu on its model.
func recordEdu(messageInterrupts: Bool = true, run: EduRun = EduRun()) throws -> String {
  let memory = TestMemory(iova: 0x10_0000, byteCount: 8192)
  let device = EduDevice()
  try device.iommu.map(
    iova: memory.range.iova, byteCount: 8192, address: memory.range.address,
    rights: [.read, .write])
  var text = ""
  let function = RecordingFunction(
    InProcessFunction(device, messageInterrupts: messageInterrupts),
    memory: [TracedMemory("memory", memory.range)]
  ) { text += $0 }
  #expect(try run(function, memory) == run.expected)
  function.finish()
  #expect(device.violations == [])
  return text
}

struct EduTraceTests {
  @Test func theTraceSaysWhatHappened() throws {
    let text = try recordEdu(run: EduRun(byteCount: 4))
    #expect(
      text == """
        martlet-trace 1
        map 0x100000 0x2000 memory
        mem 0x100000 07264564
        cr2 0x0004 0x0000
        cw2 0x0004 0x0002
        bar 0 0x100000
        r4 0 0x0000 0x010000ed
        w4 0 0x0004 0x12345678
        r4 0 0x0004 0xedcba987
        w4 0 0x0064 0xffffffff
        offers msi 1
        enable msi +
        cr2 0x0004 0x0002
        cw2 0x0004 0x0006
        w4 0 0x0020 0x00000080
        w4 0 0x0008 0x0000000c
        r4 0 0x0020 0x00000081 x3
        r4 0 0x0020 0x00000080
        r4 0 0x0008 0x1c8cfc00
        irq 0
        r4 0 0x0024 0x00000001
        w4 0 0x0064 0x00000001
        w4 0 0x0080 0x00100000
        w4 0 0x0088 0x00040200
        w4 0 0x0090 0x00000004
        w4 0 0x0098 0x00000005
        r4 0 0x0098 0x00000005 x3
        r4 0 0x0098 0x00000004
        irq 0
        r4 0 0x0024 0x00000100
        w4 0 0x0064 0x00000100
        w4 0 0x0080 0x00040200
        w4 0 0x0088 0x00101000
        w4 0 0x0090 0x00000004
        w4 0 0x0098 0x00000007
        r4 0 0x0098 0x00000007 x3
        r4 0 0x0098 0x00000006
        dma 0x101000 07264564
        irq 0
        r4 0 0x0024 0x00000100
        w4 0 0x0064 0x00000100
        w4 0 0x0020 0x00000000
        cr2 0x0004 0x0006
        cw2 0x0004 0x0002
        disable msi

        """)
  }

  @Test(arguments: [true, false]) func whatWasRecordedIsReplayed(messages: Bool) throws {
    let trace = try Trace(text: recordEdu(messageInterrupts: messages))
    let memory = TestMemory(iova: 0x10_0000, byteCount: 8192)
    let function = try ReplayedFunction(trace, memory: [memory.range])
    let run = EduRun()
    #expect(try run(function, memory) == run.expected)
    try function.finish()
  }

  /// Recorded in the lab from QEMU's own device, under the kernel's VFIO.
  @Test func whatQEMUDidIsReplayed() throws {
    let trace = try Trace(text: fixture("edu-qemu.trace"))
    let mapping = try #require(trace.mappings.first)
    let memory = TestMemory(iova: mapping.iova, byteCount: mapping.byteCount)
    let function = try ReplayedFunction(trace, memory: [memory.range])
    let run = EduRun()
    #expect(try run(function, memory) == run.expected)
    try function.finish()
  }

  @Test func anotherValueIsADivergence() throws {
    let text = try recordEdu()
    let memory = TestMemory(iova: 0x10_0000, byteCount: 8192)
    let function = try ReplayedFunction(try Trace(text: text), memory: [memory.range])
    // From there on the device is gone, which the driver notices.
    #expect(throws: EduError.timeout) { try EduRun(number: 13)(function, memory) }
    let line = 1 + (text.split(separator: "\n").firstIndex { $0.hasPrefix("w4 0 0x0008 ") } ?? 0)
    #expect(
      function.divergence
        == .init(
          line: line, expected: "w4 0 0x0008 0x0000000c", got: "w4 0 0x0008 0x0000000d"))
    #expect(throws: ReplayedFunction.Divergence.self) { try function.finish() }
  }

  @Test func memoryElsewhereIsADivergence() throws {
    let text = try recordEdu(run: EduRun(byteCount: 16))
    let trace = try Trace(text: text)
    let elsewhere = TestMemory(iova: 0x20_0000, byteCount: 8192)
    let missing = TraceMapping(name: "memory", iova: 0x10_0000, byteCount: 8192)
    #expect(throws: TraceError.missingMemory(missing)) {
      _ = try ReplayedFunction(trace, memory: [elsewhere.range])
    }
    let memory = TestMemory(iova: 0x10_0000, byteCount: 8192)
    let function = try ReplayedFunction(trace, memory: [memory.range, elsewhere.range])
    #expect(throws: EduError.timeout) { try EduRun(byteCount: 16)(function, elsewhere) }
    #expect(function.divergence?.expected == "w4 0 0x0080 0x00100000")
    #expect(function.divergence?.got == "w4 0 0x0080 0x00200000")
  }

  @Test func tooLittleAndTooMuchAreDivergences() throws {
    let text = try recordEdu()
    let memory = TestMemory(iova: 0x10_0000, byteCount: 8192)
    let lines = text.split(separator: "\n").count
    let early = try ReplayedFunction(try Trace(text: text), memory: [memory.range])
    try early.setBusMaster(false)
    #expect(throws: ReplayedFunction.Divergence.self) { try early.finish() }
    #expect(early.divergence?.expected == "bar 0 0x100000" && early.divergence?.got == nil)

    let late = try ReplayedFunction(try Trace(text: text), memory: [memory.range])
    let run = EduRun()
    _ = try run(late, memory)
    late.mark("more")
    #expect(late.divergence == .init(line: lines, expected: nil, got: "mark more"))
  }

  @Test func anInterruptThatIsNotTakenIsADivergence() throws {
    let memory = TestMemory(iova: 0x10_0000, byteCount: 8192)
    let function = try ReplayedFunction(
      try Trace(text: try recordEdu()), memory: [memory.range])
    #expect(throws: EduError.timeout) { try EduRun(takesInterrupts: false)(function, memory) }
    #expect(function.divergence?.expected == "irq 0")
    #expect(function.divergence?.got == "w4 0 0x0080 0x00100000")
  }

  @Test func whatFailedFailsAgain() throws {
    var text = ""
    let recording = RecordingFunction(InProcessFunction(EduDevice())) { text += $0 }
    func ask(_ function: any PCIFunction) {
      #expect(throws: PCIError.noRegion(bar: 3)) { try function.openRegion(bar: 3) }
      #expect(throws: PCIError.interruptsUnsupported(kind: .msix, vectors: 2)) {
        try function.enableInterrupts(.msix, eventfds: [-1, -1])
      }
    }
    ask(recording)
    recording.finish()
    let replayed = try ReplayedFunction(try Trace(text: text))
    ask(replayed)
    try replayed.finish()
  }
}

/// The text of a file in Tests/Fixtures.
func fixture(_ name: String, source: String = #filePath) throws -> String {
  let folder = source.split(separator: "/").dropLast(2).joined(separator: "/")
  let file = try #require(fopen("/\(folder)/Fixtures/\(name)", "r"))
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65536)
  while true {
    let count = fread(&buffer, 1, buffer.count, file)
    if count == 0 { return String(decoding: bytes, as: UTF8.self) }
    bytes += buffer[..<count]
  }
}
