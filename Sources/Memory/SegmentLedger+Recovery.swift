/// A ledger whose owners' bytes another host has written, which ended at any instruction: nothing in them is believed.
extension SegmentLedger {
  /// A segment was about to go to the instance, or has gone: it is the instance's.
  /// - Returns: false where there is no such segment, or it is being sent.
  public func redoGiving(_ segment: UInt32) -> Bool {
    let number = self.number(of: segment)
    guard number < count, owners[number] < Owner.sending.rawValue else { return false }
    owners[number] = Owner.instance.rawValue
    return true
  }

  /// A segment was about to come back from the instance, or has come back: it is the host's.
  /// - Returns: false where there is no such segment, or it was not the instance's before.
  public func redoTakingBack(_ segment: UInt32) -> Bool {
    let number = self.number(of: segment)
    guard number < count,
      [Owner.instance.rawValue, Owner.host.rawValue].contains(owners[number])
    else { return false }
    owners[number] = Owner.host.rawValue
    return true
  }

  /// Counts who owns what. Once, before anything else is done with the ledger, with a device that has been reset: what it
  /// had is the host's again, and what it was sending in place the instance's.
  /// - Returns: false where a byte names no owner: the record is of no use.
  public mutating func recover() -> Bool {
    freeCount = 0
    withDevice = 0
    beingSent = 0
    for number in (0..<count).reversed() {
      switch Owner(rawValue: owners[number]) {
      case .host: break
      case .device: owners[number] = Owner.host.rawValue
      case .instance: continue
      case .sending:
        owners[number] = Owner.instance.rawValue
        continue
      case nil: return false
      }
      free[freeCount] = UInt32(truncatingIfNeeded: number)
      freeCount &+= 1
    }
    return true
  }
}
