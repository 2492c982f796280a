import EmulatedPCI
import Virtio

extension VirtioNetDevice: NetworkModel {
  public var complaints: [String] { violations.first.map(\.description) }

  public var complaintCount: Int { violations.count }
  public var namedCounters: [(name: String, value: UInt64)] { counters.named }

  public static var malformations: [String] { Malformation.allCases.map(\.rawValue) }

  /// On the next frame that is received.
  public func malform(_ name: String) { malformation = Malformation(rawValue: name) }
}

/// Ways in which a faulty or hostile device hands a received frame over.
enum Malformation: String, CaseIterable {
  // Used ring.
  case idOutOfRange, idNotOutstanding, idTwice, lengthBeyondBuffer, hugeLength, zeroLength
  case lengthBelowHeader, indexAhead, indexBack
  // Header.
  case noBuffers, manyBuffers, unknownSegmentation, checksumBeyondFrame

  /// What goes into the used ring for a buffer.
  func apply(to head: inout UInt16, byteCount: inout Int, size: UInt16) {
    switch self {
    case .idOutOfRange: head &+= size
    case .idNotOutstanding: head = size - 1
    case .lengthBeyondBuffer: byteCount = 2049
    case .hugeLength: byteCount = Int(UInt32.max)
    case .zeroLength: byteCount = 0
    case .lengthBelowHeader: byteCount = VirtioNetHeader.byteCount - 1
    default: break
    }
  }

  /// What is added to the used index.
  var indexError: UInt16 {
    switch self {
    case .indexAhead: 1000
    case .indexBack: 0xfff0
    case .idTwice: 0
    default: 0
    }
  }
}
