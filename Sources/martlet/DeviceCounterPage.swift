import Channel
import EmulatedPCI
import Memory
import Supervisor
import VirtioNetDevice

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

  func publish(_ model: VirtioNetDevice) {
    let values =
      model.counters.named + [
        ("device_violations", UInt64(model.violations.count)),
        ("device_iommu_faults", UInt64(model.iommu.faultCount)),
      ]
    for (index, entry) in values.enumerated() {
      if !isNamed { page.name(index, entry.name) }
      page.set(index, entry.value)
    }
    isNamed = true
  }
}
