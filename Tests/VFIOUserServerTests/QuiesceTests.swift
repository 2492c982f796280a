import CLinux
import Glibc
import PCI
import Testing
import VFIO
import VFIOUserMessages

/// What the supervisor finds on the socket after a driver host has died over it.
@Suite(.serialized) struct QuiesceTests {
  func map(_ access: VFIOUserAccess, _ file: MemoryFile) throws {
    try access.mapDMA(
      DMAMemory(
        address: UnsafeMutableRawPointer(bitPattern: 4096)!, descriptor: file.descriptor, offset: 0,
        byteCount: 4096), iova: 0x10000, rights: [.read, .write])
  }

  func setBusMaster(_ access: VFIOUserAccess) throws {
    try VFIOUserFunction(negotiated: access.descriptor).setBusMaster(true)
  }

  @Test func repliesThatTheHostNeverReadAreNotTakenForOurs() throws {
    let model = RegisterModel()
    let served = ServedModel(model)
    let access = try VFIOUserAccess(path: served.path)
    try setBusMaster(access)
    let old = access.descriptor
    let host = MessageStream(descriptor: old, closes: false)
    var request = ByteWriter()
    RegionAccessMessage(offset: 0, region: 7, count: 200).write(to: &request)
    for identifier in 0..<UInt16(50) {
      try host.send(
        MessageHeader(identifier: identifier, command: 9, size: 0), request.bytes,
        deadline: monotonic_nanoseconds() + 30_000_000_000)
    }
    // And it read into the middle of one.
    var part = [UInt8](repeating: 0, count: 7)
    #expect(read(old, &part, 7) == 7)
    try access.quiesce()
    #expect(access.descriptor == old)
    served.end()
    #expect(!model.iommu.isBusMaster)
    #expect(served.server.clients == 1)
  }

  @Test func halfACommandOfADeadHostCostsAConnectionAndNoMemory() throws {
    let model = RegisterModel()
    let served = ServedModel(model)
    let file = MemoryFile(byteCount: 4096)
    let access = try VFIOUserAccess(path: served.path, timeout: 1000)
    try map(access, file)
    try setBusMaster(access)
    var half = ByteWriter()
    MessageHeader(identifier: 1, command: 9, size: 4000).write(to: &half)
    #expect(write(access.descriptor, half.bytes, 16) == 16)
    try access.quiesce()
    // The maps are there again: the same range cannot be mapped twice.
    #expect(throws: PCIError.system(call: "vfio-user dmaMap", errno: EEXIST)) {
      try map(access, file)
    }
    #expect(try VFIOUserFunction(negotiated: access.descriptor).vendor == 0x1234)
    served.end()
    #expect(served.server.clients == 2)
    #expect(!model.iommu.isBusMaster)
  }

  /// What is taken away and what comes after a host has died, the device's next connection learns as it is then: memory in the
  /// place of other memory must not be read as that.
  @Test func memoryThatGoesWhileThereIsNoHostIsNotToldAgain() throws {
    let model = RegisterModel()
    let served = ServedModel(model)
    let old = MemoryFile(byteCount: 4096)
    let new = MemoryFile(byteCount: 4096)
    let access = try VFIOUserAccess(path: served.path, timeout: 1000)
    try map(access, old)
    try access.recover()
    access.noteUnmapped(iova: 0x10000, byteCount: 4096)
    // It would not be taken where the first were there.
    try map(access, new)
    try access.recover()
    try access.restoreMemory()
    #expect(throws: PCIError.system(call: "vfio-user dmaMap", errno: EEXIST)) {
      try map(access, new)
    }
    served.end()
    #expect(served.server.clients == 3)
  }

  @Test func aServerThatIsGoneIsSaidToBe() throws {
    let served = ServedModel(RegisterModel())
    let path = served.path
    let access = try VFIOUserAccess(path: path, timeout: 1000)
    served.end()
    #expect(throws: PCIError.unreachable(path: path, errno: ENOENT)) {
      try access.quiesce()
    }
    #expect(throws: PCIError.unreachable(path: path, errno: ENOENT)) {
      _ = try VFIOUserAccess(path: path)
    }
    let long = "/tmp/" + String(repeating: "x", count: 200)
    #expect(throws: PCIError.unreachable(path: long, errno: ENAMETOOLONG)) {
      _ = try VFIOUserAccess(path: long)
    }
  }
}
