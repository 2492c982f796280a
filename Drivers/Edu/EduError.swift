import PCI

/// Why the driver gave up.
public enum EduError: Error, Equatable, Sendable {
  case pci(PCIError)
  case notEdu(identification: UInt32)
  case notAlive(answer: UInt32)
  case timeout
  case outsideBuffer(offset: Int, byteCount: Int)
  case outOfReach(iova: UInt64)
}
