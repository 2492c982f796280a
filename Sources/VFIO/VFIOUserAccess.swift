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
  private let place: Place?
  private let timeout: UInt64
  private var connection: VFIOUserConnection
  private var maps: [Map] = []

  /// Where the server can be reached again.
  public enum Place: Sendable {
    /// A UNIX stream socket, by its path of at most 107 bytes.
    case path(String)
    /// The address of a socket that listens, as the kernel says it (getsockname).
    case address([UInt8])
  }

  /// What the device may reach.
  private struct Map {
    let message: DMAMapMessage
    let memory: HeldDescriptor
  }

  /// Connects to a server's socket and agrees on a version.
  /// - Parameters:
  ///   - path: a UNIX stream socket, of at most 107 bytes.
  ///   - timeout: milliseconds that the server has for each answer.
  public convenience init(path: String, timeout: Int = 5000) throws(PCIError) {
    try self.init(
      socket: Self.connect(.path(path)), name: "vfio-user:\(path)", place: .path(path),
      timeout: timeout)
  }

  /// Takes over a connected socket, which is closed with this object, and agrees on a version.
  /// - Parameter place: where another connection can be made; nil for nowhere.
  public init(
    socket: Int32, name: String, place: Place? = nil, timeout: Int = 5000
  ) throws(PCIError) {
    self.place = place
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

  private static func connect(_ place: Place) throws(PCIError) -> Int32 {
    let socket = Glibc.socket(
      AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw .system(call: "socket", errno: errno) }
    let result: Int32
    let name: String
    switch place {
    case .path(let path):
      result = linux_connect_unix(socket, path)
      name = path
    case .address(let address):
      result = linux_connect_address(socket, address, address.count)
      name = "its socket"
    }
    guard result == 0 else {
      close(socket)
      throw .unreachable(path: name, errno: -result)
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
    let held = try HeldDescriptor(copyOf: memory.descriptor)
    _ = try connection.exchange(.dmaMap, message.bytes, descriptors: [memory.descriptor])
    maps.append(Map(message: message, memory: held))
  }

  public func unmapDMA(iova: UInt64, byteCount: UInt64) throws(PCIError) {
    let message = DMAUnmapMessage(address: iova, size: byteCount)
    _ = try connection.exchange(.dmaUnmap, message.bytes)
    noteUnmapped(iova: iova, byteCount: byteCount)
  }

  /// Whoever has the socket maps memory too: ``restoreMemory()`` tells a new connection of it as well.
  public func noteMapped(_ memory: DMAMemory, iova: UInt64) throws(PCIError) {
    let message = DMAMapMessage(
      flags: DMAMapMessage.readable, offset: memory.offset, address: iova, size: memory.byteCount)
    maps.append(Map(message: message, memory: try HeldDescriptor(copyOf: memory.descriptor)))
  }

  /// Whoever has the socket has unmapped memory, or will.
  public func noteUnmapped(iova: UInt64, byteCount: UInt64) {
    maps.removeAll { $0.message.address == iova && $0.message.size == byteCount }
  }

  /// Resets the device and turns bus mastering off. The driver host, which read from the same socket, must have
  /// ended; it may have done so in the middle of a message. Where the server does not answer over that socket any
  /// more, a new connection is made and the maps are told again: ``descriptor`` is another one then.
  public func quiesce() throws(PCIError) {
    connection.stream.discardPending(deadline: monotonic_nanoseconds() + timeout)
    do {
      try stop()
    } catch {
      guard case .system(let call, _) = error, call.hasPrefix("vfio-user") else {
        try reconnect()
        return try restoreMemory()
      }
      throw error
    }
  }

  /// A host that was killed may have ended in the middle of a message: only a new connection is sure to begin with a whole
  /// one. Nothing is mapped in it.
  public func recover() throws(PCIError) {
    try reconnect()
  }

  public func restoreMemory() throws(PCIError) {
    for map in maps {
      _ = try connection.exchange(
        .dmaMap, map.message.bytes, descriptors: [map.memory.descriptor])
    }
  }

  private func reconnect() throws(PCIError) {
    guard let place else { throw .gone(name) }
    // The server takes one client at a time: the old connection has to go first.
    shutdown(connection.stream.descriptor, Int32(SHUT_RDWR))
    connection = Self.connection(try Self.connect(place), name, timeout)
    try connection.negotiate()
    try stop()
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
    let command = try readCommand(request)
    guard command & master != 0 else { return }
    var write = request
    write.write16(command & ~master)
    _ = try connection.exchange(.regionWrite, write.bytes)
    guard try readCommand(request) & master == 0 else {
      throw .system(call: "turning bus mastering of \(name) off", errno: EIO)
    }
  }

  private func readCommand(_ request: ByteWriter) throws(PCIError) -> UInt16 {
    let reply = try connection.exchange(.regionRead, request.bytes)
    var reader = ByteReader(reply.payload)
    guard RegionAccessMessage(&reader) != nil, let command = reader.read16() else {
      throw connection.broken("it answered a read with too few bytes")
    }
    return command
  }
}

/// A descriptor of one's own of memory that somebody else has open.
private final class HeldDescriptor {
  let descriptor: Int32

  init(copyOf descriptor: Int32) throws(PCIError) {
    self.descriptor = linux_fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
    guard self.descriptor >= 0 else {
      throw .system(call: "fcntl F_DUPFD", errno: -self.descriptor)
    }
  }

  deinit { close(descriptor) }
}
