import EmulatedPCI
import Glibc
import Virtio

/// The control queue (virtio 1.2, 5.1.6.5).
extension VirtioNetDevice {
  /// 5.1.2: behind all pairs with MQ, behind the first one without.
  var controlQueue: Int? {
    guard features.contains(.controlQueue) else { return nil }
    return features.contains(.multiqueue) ? 2 * options.queuePairs : 2
  }

  func runCommands() -> Bool {
    guard let index = controlQueue, !queues[index].isAsleep else { return false }
    let count = queues[index].pending(iommu, &violations)
    if count == 0 { return false }
    for _ in 0..<count {
      guard queues[index].read(&chain, iommu: iommu, features: features, &violations) else {
        fail()
        return true
      }
      queues[index].take()
      var bytes: [UInt8] = []
      for piece in chain.readable where bytes.count + piece.iov_len <= 65536 {
        bytes += UnsafeRawBufferPointer(start: piece.iov_base, count: piece.iov_len)
      }
      counters.commands += 1
      let answer =
        bytes.count >= 2 && execute(bytes[0], bytes[1], Array(bytes.dropFirst(2)))
        ? VirtioNetCommand.acknowledged : VirtioNetCommand.refused
      if let last = chain.writable.last, last.iov_len >= 1 {
        last.iov_base.storeBytes(of: answer, as: UInt8.self)
        queues[index].putUsed(chain.asHead, byteCount: 1, &violations)
      } else {
        violations.add("5.1.6.5", "a command without room for its acknowledgement")
        queues[index].putUsed(chain.asHead, byteCount: 0, &violations)
      }
    }
    queues[index].publish()
    interruptQueue(index)
    return true
  }

  private func execute(_ commandClass: UInt8, _ command: UInt8, _ data: [UInt8]) -> Bool {
    switch (commandClass, command) {
    case (VirtioNetCommand.receiveClass, VirtioNetCommand.promiscuous):
      guard agreed(.controlReceive, "5.1.6.5.1.2"), data.count == 1 else { return false }
      filter.isPromiscuous = data[0] != 0
    case (VirtioNetCommand.receiveClass, VirtioNetCommand.allMulticast):
      guard agreed(.controlReceive, "5.1.6.5.1.2"), data.count == 1 else { return false }
      filter.allMulticast = data[0] != 0
    case (VirtioNetCommand.macClass, VirtioNetCommand.macTableSet):
      guard agreed(.controlReceive, "5.1.6.5.2.2"), let tables = addressTables(data) else {
        return false
      }
      filter.unicast = tables.0
      filter.multicast = tables.1
    case (VirtioNetCommand.macClass, VirtioNetCommand.macAddressSet):
      guard agreed(.controlMACAddress, "5.1.6.5.2.2"), data.count == 6 else { return false }
      filter.macAddress = data
    case (VirtioNetCommand.multiqueueClass, VirtioNetCommand.queuePairsSet):
      guard agreed(.multiqueue, "5.1.6.5.5"), data.count == 2 else { return false }
      let pairs = Int(data[0]) | Int(data[1]) << 8
      guard pairs >= 1, pairs <= options.queuePairs else {
        violations.add("5.1.6.5.5.2", "\(pairs) queue pairs of \(options.queuePairs)")
        return false
      }
      queuePairsInUse = pairs
    case (VirtioNetCommand.coalescingClass, VirtioNetCommand.transmitCoalescingSet),
      (VirtioNetCommand.coalescingClass, VirtioNetCommand.receiveCoalescingSet):
      // Interrupts are sent once a burst, whatever the limits.
      return agreed(.notificationCoalescing, "5.1.6.5.7") && data.count == 8
    default: return false
    }
    return true
  }

  private func agreed(_ feature: VirtioFeatures, _ section: String) -> Bool {
    if features.contains(feature) { return true }
    violations.add(section, "a command that needs \(feature.descriptions)")
    return false
  }

  /// 5.1.6.5.2: two tables, each a 32-bit count and its addresses.
  private func addressTables(_ data: [UInt8]) -> ([[UInt8]], [[UInt8]])? {
    var tables: [[[UInt8]]] = []
    var at = 0
    for _ in 0..<2 {
      guard at + 4 <= data.count else { break }
      let count = (0..<4).reduce(0) { $0 | Int(data[at + $1]) << (8 * $1) }
      at += 4
      guard count <= 4096, at + 6 * count <= data.count else { break }
      tables.append((0..<count).map { Array(data[at + 6 * $0..<at + 6 * $0 + 6]) })
      at += 6 * count
    }
    guard tables.count == 2, at == data.count else {
      violations.add("5.1.6.5.2.2", "an address table of \(data.count) bytes that do not add up")
      return nil
    }
    return (tables[0], tables[1])
  }
}
