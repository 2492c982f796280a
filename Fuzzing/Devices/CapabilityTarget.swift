import Driver
import FuzzHarness
import Memory
import PCI
import VirtioTransports

/// The walk through a function's capabilities, and through virtio's structures among them: the input is its
/// configuration space.
let capabilities = FuzzTarget("pci-capabilities") { input in
  var input = input
  let function = RandomFunction(input.bytes(256), registers: input)
  if let list = try? function.capabilities() {
    require(Set(list.map(\.offset)).count == list.count, "a capability twice")
    require(list.allSatisfy { (0x40..<0x100).contains($0.offset) }, "a capability elsewhere")
  }
  _ = try? PCITransport(function)
}

/// A function whose configuration space holds anything, with memory behind the first two of its registers.
private final class RandomFunction: PCIFunction {
  let name = "random"
  private let configuration: [UInt8]
  private let byteCounts: [UInt64]

  init(_ configuration: [UInt8], registers: FuzzInput) {
    var registers = registers
    self.configuration = configuration
    byteCounts = [4096, UInt64(registers.number(UInt16.self))]
  }

  func readConfiguration(at offset: Int, width: RegisterWidth) throws(PCIError) -> UInt32 {
    require(offset >= 0 && offset + width.rawValue <= 256, "a read outside configuration space")
    require(offset % width.rawValue == 0, "a read that is not aligned")
    var value: UInt32 = 0
    for byte in 0..<width.rawValue where offset + byte < configuration.count {
      value |= UInt32(configuration[offset + byte]) << (8 * byte)
    }
    return value
  }
  func writeConfiguration(_ value: UInt32, at offset: Int, width: RegisterWidth) {}

  func openRegion(bar: Int) throws(PCIError) -> RegisterRegion {
    guard bar < byteCounts.count else { throw .noRegion(bar: bar) }
    let calls = RegisterCalls(
      context: Unmanaged.passUnretained(self).toOpaque(),
      load: { context, bar, offset, byteCount in
        let function = Unmanaged<RandomFunction>.fromOpaque(context).takeUnretainedValue()
        require(
          offset + UInt64(byteCount) <= function.byteCounts[Int(bar)],
          "a register outside its region")
        return 0
      }, store: { _, _, _, _, _ in })
    return RegisterRegion(bar: bar, byteCount: byteCounts[bar], calls: calls)
  }

  var interrupts: InterruptCapability { InterruptCapability(kind: .intx, vectors: 1) }
  func enableInterrupts(_ kind: InterruptKind, eventfds: [Int32]) {}
  func disableInterrupts(_ kind: InterruptKind) {}
  func unmaskINTx() {}
  func reset() {}
}
