import CLinux
import Glibc
import PCI
import VFIOUserMessages

/// A device that another process plays, as the supervisor holds it: it connects, agrees on a version, and says which
/// memory the device may reach. The driver host then drives the device over the same socket.
///
/// Supervisor and host use the socket in turn: maps before the host starts, ``quiesce()`` after it has ended.
public final class VFIOUserAccess: DeviceAccess {
  public let name: String
  public let kind = DeviceAccessKind.vfioUser
  private let path: String?
  private let timeout: UInt64
  private var connection: VFIOUserConnection
  private var maps: [(message: DMAMapMessage, descriptor: Int32)] = []

  /// Connects to a server's socket and agrees on a version.
  /// - Parameters:
  ///   - path: a UNIX stream socket, of at most 107 bytes.
  ///   - timeout: milliseconds that the server has for each answer.
  public convenience init(path: String, timeout: Int = 5000) throws(PCIError) {
    try self.init(
      path: path, name: "vfio-user:\(path)", socket: Self.connect(path), timeout: timeout)
  }

  /// Takes over a connected socket, which is closed with this object, and agrees on a version.
  public convenience init(socket: Int32, name: String, timeout: Int = 5000) throws(PCIError) {
    try self.init(path: nil, name: name, socket: socket, timeout: timeout)
  }

  private init(path: String?, name: String, socket: Int32, timeout: Int) throws(PCIError) {
    self.path = path
    self.name = name
    self.timeout = UInt64(max(1, timeout)) * 1_000_000
    connection = Self.connection(socket, name, self.timeout)
    try connection.negotiate()
  }

  private static func connection(_ socket: Int32, _ name: String, _ timeout: UInt64)
    -> VFIOUserConnection
  {
    VFIOUserConnection(
      descriptor: socket, closes: true, name: name, timeout: timeout,
      maximumDescriptors: MessageLimits.assumedDescriptorCount, firstIdentifier: 0x8000)
  }

  private static func connect(_ path: String) throws(PCIError) -> Int32 {
    let socket = Glibc.socket(
      AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw .system(call: "socket", errno: errno) }
    let result = linux_connect_unix(socket, path)
    guard result == 0 else {
      close(socket)
      throw .unreachable(path: path, errno: -result)
    }
    return socket
  }

  public var descriptor: Int32 { connection.stream.descriptor }

  /// The protocol names no limits: what an x86-64 user address or a 48-bit IOMMU can express.
  public var iovaRanges: [ClosedRange<UInt64>] { [0...(1 << 48) - 1] }

  public func mapDMA(_ memory: DMAMemory, iova: UInt64, rights: DMARights) throws(PCIError) {
    let message = DMAMapMessage(
      flags: (rights.contains(.read) ? DMAMapMessage.readable : 0)
        | (rights.contains(.write) ? DMAMapMessage.writable : 0),
      offset: memory.offset, address: iova, size: memory.byteCount)
    _ = try connection.exchange(.dmaMap, message.bytes, descriptors: [memory.descriptor])
    maps.append((message, memory.descriptor))
  }

  public func unmapDMA(iova: UInt64, byteCount: UInt64) throws(PCIError) {
    let message = DMAUnmapMessage(address: iova, size: byteCount)
    _ = try connection.exchange(.dmaUnmap, message.bytes)
    maps.removeAll { $0.message.address == iova && $0.message.size == byteCount }
  }

  /// Resets the device and turns bus mastering off. The driver host, which read from the same socket, must have
  /// ended; it may have done so in the middle of a message. Where the server does not answer over that socket any
  /// more, a new connection is made and the maps are told again: ``descriptor`` is another one then.
  public func quiesce() throws(PCIError) {
    connection.stream.discardPending(deadline: MessageClock.now + timeout)
    do {
      try stop()
    } catch {
      guard case .system(let call, _) = error, call.hasPrefix("vfio-user") else {
        try reconnect()
        return try stop()
      }
      throw error
    }
  }

  private func reconnect() throws(PCIError) {
    guard let path else { throw .gone(name) }
    // The server takes one client at a time: the old connection has to go first.
    shutdown(connection.stream.descriptor, Int32(SHUT_RDWR))
    connection = Self.connection(try Self.connect(path), name, timeout)
    try connection.negotiate()
    for map in maps {
      _ = try connection.exchange(.dmaMap, map.message.bytes, descriptors: [map.descriptor])
    }
  }

  private func stop() throws(PCIError) {
    let info = try connection.exchange(
      .deviceInfo, DeviceInfoMessage().bytes)
    guard let device = DeviceInfoMessage(info.payload) else {
      throw connection.broken("its device info is too short")
    }
    if device.flags & DeviceInfoMessage.supportsReset != 0 {
      _ = try connection.exchange(.deviceReset)
    }
    let commandOffset: UInt64 = 0x04
    let master: UInt16 = 1 << 2
    var request = ByteWriter()
    RegionAccessMessage(offset: commandOffset, region: RegionIndex.configuration, count: 2)
      .write(to: &request)
    let reply = try connection.exchange(.regionRead, request.bytes)
    var reader = ByteReader(reply.payload)
    guard RegionAccessMessage(&reader) != nil, let command = reader.read16() else {
      throw connection.broken("it answered a read with too few bytes")
    }
    guard command & master != 0 else { return }
    request.write16(command & ~master)
    _ = try connection.exchange(.regionWrite, request.bytes)
  }
}
