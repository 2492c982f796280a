import Testing

@testable import Supervisor

@Suite struct IOMMUFaultLogTests {
  static let address = "0000:00:03.0"
  static let intel =
    "DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0x200000000 [fault reason 0x06] PTE Read access is not set"
  static let amd =
    "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:03.0 domain=0x0004 address=0x2000 flags=0x0020]"

  @Test(arguments: [intel, amd])
  func faultsOfTheFunctionAreFound(message: String) {
    let record = "3,612,5551212,-;\(message)\n SUBSYSTEM=pci\n"
    #expect(IOMMUFaultLog.fault(in: record, of: Self.address) == message)
    #expect(IOMMUFaultLog.fault(in: record, of: "0000:00:03.1") == nil)
  }

  @Test(arguments: [
    "", ";", "3,1,2,-", "6,1,2,-;vfio-pci 0000:00:03.0: enabling device",
    "6,1,2,-;DMAR: DRHD: handling fault status reg 2",
    "6,1,2,-;\n Request device [00:03.0] fault addr",
  ])
  func otherRecordsAreNot(record: String) {
    #expect(IOMMUFaultLog.fault(in: record, of: Self.address) == nil)
  }
}
