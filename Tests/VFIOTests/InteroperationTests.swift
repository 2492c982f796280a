import CLinux
import Glibc
import PCI
import Testing
import VFIO

private var foreignSocket: String? {
  getenv("MARTLET_VFIO_USER_SOCKET").map { String(cString: $0) }
}

/// Our client with a server that we did not write, such as libvfio-user's samples: set MARTLET_VFIO_USER_SOCKET to its
/// socket. Only what any PCI device must do is asked of it.
@Suite(.serialized, .enabled(if: foreignSocket != nil)) struct InteroperationTests {
  @Test func aServerOfAnotherKindIsUnderstood() throws {
    let access = try VFIOUserAccess(path: try #require(foreignSocket))
    let memory = linux_memfd_create("memory", LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING)
    defer { close(memory) }
    ftruncate(memory, 1 << 20)
    let address = try #require(
      linux_mmap(nil, 1 << 20, PROT_READ | PROT_WRITE, Int32(MAP_SHARED), memory, 0))
    defer { munmap(address, 1 << 20) }
    let pieces = DMAMemory(address: address, descriptor: memory, offset: 0, byteCount: 1 << 20)
    try access.mapDMA(pieces, iova: 0x10_0000, rights: [.read, .write])
    try access.unmapDMA(iova: 0x10_0000, byteCount: 1 << 20)
    try access.mapDMA(pieces, iova: 0x10_0000, rights: [.read, .write])
    let function = try VFIOUserFunction(negotiated: access.descriptor, name: access.name)
    #expect(try function.vendor != 0xffff)
    #expect(try function.capabilities().count < 48)
    try function.setBusMaster(true)
    let offer = try function.interrupts
    print("offers \(offer.vectors) \(offer.kind), BARs:")
    for bar in 0...5 {
      guard let region = try? function.openRegion(bar: bar) else { continue }
      print("  BAR \(bar): \(region.byteCount) bytes")
    }
    if offer.vectors > 0 {
      let events = (0..<min(offer.vectors, 16)).map { _ in eventfd(0, Int32(EFD_NONBLOCK)) }
      defer { for event in events { close(event) } }
      try function.enableInterrupts(offer.kind, eventfds: events)
      try function.enableInterrupts(offer.kind, eventfds: [events[0]])
      try function.disableInterrupts(offer.kind)
    }
    do throws(PCIError) {
      try function.reset()
    } catch {
      #expect(error == .resetUnsupported)
    }
    try access.unmapDMA(iova: 0x10_0000, byteCount: 1 << 20)
    try access.quiesce()
  }
}
