import CLinux
import Glibc
import PCI

/// Where requests to VFIO descriptors leave this process. Tests answer them in the kernel's place.
protocol DeviceRequests: AnyObject {
  /// ioctl(2). Returns what the call returns, or -errno.
  func request(
    _ request: UInt, of descriptor: Int32, _ argument: UnsafeMutableRawPointer?
  ) -> Int32
  /// ioctl(2) with a number in the place of a pointer.
  func request(_ request: UInt, of descriptor: Int32, value: UInt) -> Int32
}

final class KernelRequests: DeviceRequests {
  func request(
    _ request: UInt, of descriptor: Int32, _ argument: UnsafeMutableRawPointer?
  ) -> Int32 {
    linux_ioctl(descriptor, request, argument)
  }

  func request(_ request: UInt, of descriptor: Int32, value: UInt) -> Int32 {
    linux_ioctl_value(descriptor, request, value)
  }
}

extension DeviceRequests {
  /// A request whose answer the kernel may find too long for the structure: it then says in `argsz`, the first 32
  /// bits, how much room it wants, and is asked once more.
  /// - Parameter start: the bytes of the structure without what follows it; `argsz` is filled in here.
  func growingRequest(
    _ request: UInt, of descriptor: Int32, named call: String, start: [UInt8]
  ) throws(PCIError) -> [UInt8] {
    var bytes = start
    // A second answer that wants more room again is cut off: every reader checks what it has got.
    for _ in 0..<2 {
      let room = UInt32(bytes.count)
      let (result, wanted) = bytes.withUnsafeMutableBytes { buffer -> (Int32, UInt32) in
        buffer.storeBytes(of: room, toByteOffset: 0, as: UInt32.self)
        let result = self.request(request, of: descriptor, buffer.baseAddress)
        return (result, buffer.loadUnaligned(fromByteOffset: 0, as: UInt32.self))
      }
      guard result >= 0 else { throw .system(call: call, errno: -result) }
      guard wanted > room, wanted <= InfoBytes.largest else { break }
      bytes = start + [UInt8](repeating: 0, count: Int(wanted) - start.count)
    }
    return bytes
  }
}

/// A structure that the kernel has filled, with the capabilities that follow it (linux/vfio.h, struct
/// vfio_info_cap_header). Nothing outside its bytes is read.
struct InfoBytes {
  static let largest: UInt32 = 65536
  let bytes: [UInt8]

  func load32(_ offset: Int) -> UInt32 { load(offset) ?? 0 }
  func load64(_ offset: Int) -> UInt64 { load(offset) ?? 0 }

  private func load<Value: FixedWidthInteger>(_ offset: Int) -> Value? {
    let width = Value.bitWidth / 8
    guard offset >= 0, offset <= bytes.count - width else { return nil }
    return bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: offset, as: Value.self) }
  }

  /// Where the capability begins, counted from the structure's start.
  /// - Parameter first: the structure's own cap_offset, 0 for no capabilities.
  func capability(_ identifier: UInt16, from first: UInt32) -> Int? {
    var offset = Int(first)
    // Each capability has a header of 8 bytes, so that a longer walk goes in circles.
    for _ in 0..<(bytes.count / 8) {
      guard offset != 0, let found: UInt16 = load(offset), let next: UInt32 = load(offset + 4)
      else { return nil }
      if found == identifier { return offset }
      offset = Int(next)
    }
    return nil
  }

  /// The pairs of 64-bit numbers of a capability that counts them behind its header.
  func pairs(of capability: Int) -> [(UInt64, UInt64)] {
    let array = capability + 16
    let count = min(Int(load32(capability + 8)), max(0, (bytes.count - array) / 16))
    return (0..<max(0, count)).map { (load64(array + 16 * $0), load64(array + 16 * $0 + 8)) }
  }
}
