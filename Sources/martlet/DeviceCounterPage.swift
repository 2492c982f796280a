import Channel
import EmulatedPCI
import Memory
import Supervisor

/// What an emulated device counts, published for its supervisor.
final class DeviceCounterPage {
  private let page: CounterPage
  private var isNamed = false

  init(_ descriptor: Int32) throws(ServeFailure) {
    do throws(MemoryError) {
      page = try CounterPage(
        adopting: descriptor, capacity: EmulatedDevice.counterCapacity, writable: true)
    } catch {
      throw .usage("--counters-fd \(descriptor): \(error)")
    }
  }

  func publish(_ model: any NetworkModel) {
    let values =
      model.namedCounters + [
        ("device_violations", UInt64(model.complaintCount)),
        ("device_iommu_faults", UInt64(model.iommu.faultCount)),
      ]
    for (index, entry) in values.enumerated() {
      if !isNamed { page.name(index, entry.name) }
      page.set(index, entry.value)
    }
    isNamed = true
  }
}
