import EmulatedPCI
import PCI
import Virtio

/// The common configuration structure (4.1.4.3): status, features, queues.
extension VirtioNetDevice {
  /// 4.1.3.1: as wide as the field; 64-bit fields in two halves.
  func checkWidth(_ offset: Int, _ byteCount: Int) {
    let width =
      switch offset {
      case 0..<0x10, 0x20..<0x38: 4
      case 0x14, 0x15: 1
      default: 2
      }
    if byteCount != width || offset % width != 0 {
      violations.add("4.1.3.1", "an access of \(byteCount) bytes at common offset \(offset)")
    }
  }

  func readCommon(_ offset: Int) -> UInt32 {
    switch offset {
    case VirtioPCI.Common.queueSize..<VirtioPCI.Common.queueNotifyOffset,
      VirtioPCI.Common.queueDescriptors..<VirtioPCI.Common.queueDevice + 8:
      let index = Int(queueSelect)
      if index < queues.count { return queues[index].register(offset) }
      return offset == VirtioPCI.Common.queueVector ? UInt32(VirtioPCI.noVector) : 0
    case VirtioPCI.Common.deviceFeatureSelect: return deviceFeatureSelect
    case VirtioPCI.Common.deviceFeature:
      return deviceFeatureSelect < 2
        ? UInt32(truncatingIfNeeded: offered.rawValue >> (32 * UInt64(deviceFeatureSelect))) : 0
    case VirtioPCI.Common.driverFeatureSelect: return driverFeatureSelect
    case VirtioPCI.Common.driverFeature:
      return driverFeatureSelect < 2
        ? UInt32(truncatingIfNeeded: driverFeatures >> (32 * UInt64(driverFeatureSelect))) : 0
    case VirtioPCI.Common.configurationVector: return UInt32(configurationVector)
    case VirtioPCI.Common.queueCount: return UInt32(queues.count)
    case VirtioPCI.Common.deviceStatus: return UInt32(status.rawValue)
    case VirtioPCI.Common.configurationGeneration: return UInt32(generation)
    case VirtioPCI.Common.queueSelect: return UInt32(queueSelect)
    case VirtioPCI.Common.queueNotifyOffset: return UInt32(queueSelect)
    default: return 0
    }
  }

  func writeCommon(_ offset: Int, _ value: UInt32) {
    switch offset {
    case VirtioPCI.Common.deviceFeatureSelect: deviceFeatureSelect = value
    case VirtioPCI.Common.driverFeatureSelect: driverFeatureSelect = value
    case VirtioPCI.Common.driverFeature: writeFeatures(value)
    case VirtioPCI.Common.configurationVector:
      configurationVector = checkedVector(UInt16(truncatingIfNeeded: value))
    case VirtioPCI.Common.deviceStatus:
      writeStatus(VirtioStatus(rawValue: UInt8(truncatingIfNeeded: value)))
    case VirtioPCI.Common.queueSelect: queueSelect = UInt16(truncatingIfNeeded: value)
    case VirtioPCI.Common.queueSize, VirtioPCI.Common.queueVector, VirtioPCI.Common.queueEnable,
      VirtioPCI.Common.queueReset, VirtioPCI.Common.queueDescriptors..<0x38:
      writeQueue(offset, value)
    default:
      violations.add("4.1.4.3.2", "a write to read-only common field \(offset)")
    }
  }

  private func writeFeatures(_ value: UInt32) {
    if status.contains(.featuresOK) {
      violations.add("3.1.1", "features were changed after FEATURES_OK")
      return
    }
    guard driverFeatureSelect < 2 else {
      if value != 0 { violations.add("2.2.1", "features beyond bit 63 were accepted") }
      return
    }
    let shift = 32 * UInt64(driverFeatureSelect)
    driverFeatures = driverFeatures & ~(0xffff_ffff << shift) | UInt64(value) << shift
  }

  private func writeStatus(_ new: VirtioStatus) {
    if new == [] {
      resetModel()
      return
    }
    let cleared = status.subtracting(new).subtracting(.needsReset)
    if cleared != [] { violations.add("2.1.1", "status bits \(cleared.rawValue) were cleared") }
    let set = new.subtracting(status)
    if status.contains(.failed) {
      violations.add("2.1.1", "status was set after FAILED without a reset")
    }
    if set.contains(.driver) && !new.contains(.acknowledge) {
      violations.add("3.1.1", "DRIVER before ACKNOWLEDGE")
    }
    if set.contains(.featuresOK) && !status.contains(.driver) {
      violations.add("3.1.1", "FEATURES_OK before DRIVER")
    }
    if set.contains(.driverOK) && !status.contains(.featuresOK) {
      violations.add("3.1.1", "DRIVER_OK before FEATURES_OK")
    }
    status = new.union(status.intersection(.needsReset))
    if set.contains(.featuresOK) { agree() }
    if set.contains(.driverOK) { begin() }
  }

  /// FEATURES_OK stays only where the driver's choice makes sense (2.2.1, 5.1.3.1).
  private func agree() {
    let chosen = VirtioFeatures(rawValue: driverFeatures)
    var isGood = true
    if !offered.isSuperset(of: chosen) {
      violations.add(
        "2.2.1", "features that were not offered: \(chosen.subtracting(offered).descriptions)")
      isGood = false
    }
    for (feature, needs) in VirtioFeatures.prerequisites
    where chosen.contains(feature) && !chosen.contains(needs) {
      violations.add("2.2.1", "\(feature.descriptions) without \(needs.descriptions)")
      isGood = false
    }
    if !chosen.contains(.version1) {
      violations.add("6.1", "VERSION_1 was offered and not accepted")
      isGood = false
    }
    features = chosen
    if !isGood { status.remove(.featuresOK) }
  }

  func begin() {
    wire.setReceiveOffloads(
      checksum: features.contains(.guestChecksum), tcp4: features.contains(.guestTSO4),
      tcp6: features.contains(.guestTSO6))
  }

  private func checkedVector(_ vector: UInt16) -> UInt16 {
    if vector == VirtioPCI.noVector { return vector }
    guard Int(vector) < interrupts.vectorCount else {
      violations.add("4.1.5.1.2.2", "vector \(vector) of \(interrupts.vectorCount)")
      return VirtioPCI.noVector
    }
    return vector
  }

  private func writeQueue(_ offset: Int, _ value: UInt32) {
    let index = Int(queueSelect)
    guard index < queues.count else {
      violations.add("4.1.4.3.2", "a write to queue \(index), which does not exist")
      return
    }
    func half(_ field: inout UInt64, _ start: Int) {
      let shift = UInt64(8 * (offset - start))
      field = field & ~(0xffff_ffff << shift) | UInt64(value) << shift
    }
    if queues[index].isEnabled
      && offset != VirtioPCI.Common.queueReset && offset != VirtioPCI.Common.queueVector
    {
      violations.add("4.1.4.3.2", "queue \(index) was changed after it was enabled")
    }
    switch offset {
    case VirtioPCI.Common.queueSize:
      let size = UInt16(truncatingIfNeeded: value)
      // 4.1.5.1.3: a power of two, unless packed rings were agreed.
      let isAllowed = features.contains(.packedRing) || size & (size &- 1) == 0
      if size == 0 || !isAllowed || size > UInt16(DeviceQueue.maximumSize) {
        violations.add("4.1.4.3.2", "a queue size of \(size)")
      } else {
        queues[index].size = size
      }
    case VirtioPCI.Common.queueVector:
      queues[index].vector = checkedVector(UInt16(truncatingIfNeeded: value))
    case VirtioPCI.Common.queueEnable: enableQueue(index, value)
    case VirtioPCI.Common.queueReset:
      if !features.contains(.ringReset) {
        violations.add("2.6.1.2", "a queue was reset although RING_RESET was not agreed")
      } else if value == 1 {
        queues[index].reset()
      }
    case VirtioPCI.Common.queueDescriptors..<VirtioPCI.Common.queueDriver:
      half(&queues[index].descriptors, VirtioPCI.Common.queueDescriptors)
    case VirtioPCI.Common.queueDriver..<VirtioPCI.Common.queueDevice:
      half(&queues[index].available, VirtioPCI.Common.queueDriver)
    default: half(&queues[index].used, VirtioPCI.Common.queueDevice)
    }
  }

  private func enableQueue(_ index: Int, _ value: UInt32) {
    if value != 1 {
      violations.add("4.1.4.3.2", "\(value) was written to queue_enable")
      return
    }
    if !status.contains(.featuresOK) {
      violations.add("3.1.1", "queue \(index) was enabled before FEATURES_OK")
    }
    queues[index].enable(features, &violations)
  }
}
