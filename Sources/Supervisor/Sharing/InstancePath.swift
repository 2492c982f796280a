import Channel
import Glibc
import Memory
import PCI
import VFIO

/// The two that have to know of an instance's memory: the device, which may read it, and the driver host.
protocol InstancePath: AnyObject {
  /// Tells the driver host something.
  func tell(_ text: String, _ descriptors: [Int32])
  /// Lets the device read memory, before the host is told of it.
  func map(_ memory: DMAMemory, iova: UInt64, id: UInt32) throws(PCIError)
  /// Takes memory from the device, after the host has let go of it.
  /// - Returns: false where the host does it and will say `unmapped`.
  func unmap(iova: UInt64, byteCount: Int, id: UInt32) throws(PCIError) -> Bool
  /// The device has refused memory that it was to read.
  func forget(iova: UInt64, byteCount: Int)
}

extension InstancePath {
  func map(_ arena: borrowing Arena, iova: UInt64, id: UInt32) throws(PCIError) {
    try map(
      DMAMemory(
        address: arena.address, descriptor: arena.descriptor, offset: 0,
        byteCount: UInt64(arena.byteCount)), iova: iova, id: id)
  }
}

/// A driver host that runs, with its device.
///
/// The kernel's VFIO is told of memory by the supervisor, which alone has the container. A vfio-user device has one
/// socket, which the running host has: it passes the supervisor's word on, in order, and whoever has the socket could map
/// memory anyway.
final class HostPath: InstancePath {
  let host: HostLife
  private let access: any DeviceAccess

  init(_ host: HostLife, _ access: any DeviceAccess) {
    self.host = host
    self.access = access
  }

  func tell(_ text: String, _ descriptors: [Int32]) {
    host.send(text, descriptors: descriptors)
  }

  func map(_ memory: DMAMemory, iova: UInt64, id: UInt32) throws(PCIError) {
    guard let relayed = access as? VFIOUserAccess else {
      return try access.mapDMA(memory, iova: iova, rights: .read)
    }
    try relayed.noteMapped(memory, iova: iova)
    let from = memory.offset == 0 ? "" : " from=\(memory.offset)"
    tell("map id=\(id) iova=\(iova) bytes=\(memory.byteCount)\(from)", [memory.descriptor])
  }

  func forget(iova: UInt64, byteCount: Int) {
    (access as? VFIOUserAccess)?.noteUnmapped(iova: iova, byteCount: UInt64(byteCount))
  }

  func unmap(iova: UInt64, byteCount: Int, id: UInt32) throws(PCIError) -> Bool {
    guard let relayed = access as? VFIOUserAccess else {
      try access.unmapDMA(iova: iova, byteCount: UInt64(byteCount))
      return true
    }
    relayed.noteUnmapped(iova: iova, byteCount: UInt64(byteCount))
    // Without a host there is no connection that knows of it.
    if host.isDown { return true }
    tell("unmap id=\(id) iova=\(iova) bytes=\(byteCount)", [])
    return false
  }
}
