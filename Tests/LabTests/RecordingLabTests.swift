import Driver
import Memory
import PCI
import Testing
import Trace
import VFIO
import VirtioNet

extension KernelVFIOLabTests {
  /// Commands are answered in memory alone, some time after the doorbell: the recorder has to wait for that.
  @Test func commandsAreRecordedWithTheirAnswers() throws {
    let rings = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "lab-rings")
    let arena = try Arena(byteCount: 1 << 20, pageSize: .ordinary, name: "lab-arena")
    try access.mapDMA(memory(rings), iova: Self.ringsIOVA, rights: [.read, .write])
    try access.mapDMA(memory(arena), iova: Self.arenaIOVA, rights: [.read, .write])
    try DriverReplay<VirtioNet>.run(Trace(text: try recordCommands(rings, arena)))
    try access.quiesce()
  }

  private func recordCommands(
    _ rings: borrowing Arena, _ arena: borrowing Arena
  ) throws -> String {
    let ringsRange = DMARange(
      address: rings.address, iova: Self.ringsIOVA, byteCount: rings.byteCount)
    let arenaRange = DMARange(
      address: arena.address, iova: Self.arenaIOVA, byteCount: arena.byteCount)
    var text = ""
    let recording = RecordingFunction(
      function,
      memory: [
        TracedMemory("rings", ringsRange), TracedMemory("arena", arenaRange, watch: .parts),
      ], settling: RecordingFunction.hardwareSettling
    ) { text += $0 }
    var driver = try TracedDriver<VirtioNet>(
      DriverResources(
        function: recording, rings: DMAZone(ringsRange), arena: arenaRange,
        requiresPlatformAccess: true))
    try driver.start()
    for _ in 0..<5 {
      try driver.setPromiscuous(true)
      try driver.setPromiscuous(false)
    }
    driver.stop()
    recording.finish()
    return text
  }
}
