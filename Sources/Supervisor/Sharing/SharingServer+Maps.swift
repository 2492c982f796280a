import Channel
import Memory

/// What a vfio-user device would not take of what the driver host passed on to it.
extension SharingServer {
  /// The device does not have memory that it was to get, and must not be told of it by another connection either: its place may
  /// be another one's then.
  /// - Returns: false where it is what the instance began with, without which there is none.
  func noteMapRefused(_ message: ControlMessage, of instance: AttachedInstance) -> Bool {
    let record = instance.record
    var extents = instance.extents
    var expected = 0
    if case .extending(let extent)? = instance.move?.stage {
      extents.append(extent)
      expected = extent.offset
    }
    let place: UInt64 = message.number("iova") ?? iova(record, expected)
    if let extent = extents.first(where: { iova(record, $0.offset) == place }) {
      if extent.isMapped { path.forget(iova: place, byteCount: extent.byteCount) }
      extent.isMapped = false
      return true
    }
    if let extent = instance.registrations.first(where: { iova(record, $0.offset) == place }) {
      if extent.isMapped { path.forget(iova: place, byteCount: extent.byteCount) }
      extent.isMapped = false
      return true
    }
    if place == iova(record, 0), instance.isMapped {
      path.forget(iova: place, byteCount: instance.memory.arena.byteCount)
      instance.isMapped = false
    }
    return false
  }
}
