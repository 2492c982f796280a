import Driver
import PCI
import VFIO
import VhostUser

/// The function that a driver host drives.
extension DriverHost {
  /// Which function it is, as it says itself.
  static func identify(_ function: any PCIFunction) throws(HostError) -> PCIMatch {
    do throws(PCIError) {
      return PCIMatch(vendor: try function.vendor, device: try function.device)
    } catch {
      throw .pci(error)
    }
  }

  /// - Parameters:
  ///   - device: the descriptor behind which it is.
  ///   - doorbells: of a vhost-user back-end, made before the process gave up the right to make more.
  static func openFunction(
    _ arguments: HostArguments, _ device: Int32, _ doorbells: VhostUserDoorbells?
  ) throws(HostError) -> any PCIFunction {
    do throws(PCIError) {
      switch arguments.access {
      case .vfio:
        return try KernelVFIOFunction(descriptor: device, name: arguments.deviceName)
      case .vfioUser:
        return try VFIOUserFunction(negotiated: device, name: arguments.deviceName)
      case .vhostUser:
        return try VhostUserFunction(
          negotiated: device, name: arguments.deviceName,
          doorbells: doorbells ?? VhostUserDoorbells(queuePairs: arguments.queues))
      }
    } catch {
      throw .pci(error)
    }
  }
}
