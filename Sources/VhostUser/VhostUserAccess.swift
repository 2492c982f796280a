import CLinux
import Glibc
import PCI
import VFIO
import VFIOUserMessages
import VhostUserMessages

/// A vhost-user back-end as the supervisor holds it: it connects, agrees on the protocol, and says which memory the
/// back-end may reach (SET_MEM_TABLE). The driver host then sets up rings over the same socket (``VhostUserFunction``).
///
/// Addresses in the table are IOVAs, as the device's and as the front-end's own: no process's pointers leave it.
/// The protocol has no rights: a back-end can write whatever it can read. So the back-end is trusted with the memory of
/// this NIC, its rings, received packets and those to be sent, and with nothing else.
public final class VhostUserAccess: DeviceAccess {
  public let name: String
  public let kind = DeviceAccessKind.vhostUser
  private let path: String
  private var connection: VhostUserConnection
  private var isConnected = true
  private var regions: [(region: VhostUserRegion, descriptor: Int32)] = []

  /// Connects to a back-end's socket and agrees on the protocol.
  /// - Parameters:
  ///   - path: a UNIX stream socket, of at most 107 bytes.
  ///   - timeout: milliseconds that the back-end has for each answer.
  public init(path: String, timeout: Int = 5000) throws(PCIError) {
    self.path = path
    name = "vhost-user:\(path)"
    connection = try Self.connect(path, timeout)
  }

  private static func connect(
    _ path: String, _ timeout: Int
  ) throws(PCIError) -> VhostUserConnection {
    let socket = Glibc.socket(
      AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard socket >= 0 else { throw .system(call: "socket", errno: errno) }
    let connection = VhostUserConnection(
      descriptor: socket, closes: true, name: "vhost-user:\(path)", timeout: timeout)
    let result = linux_connect_unix(socket, path)
    guard result == 0 else {
      throw .peer(
        "vhost-user:\(path)",
        reason:
          "no back-end can be reached (\(String(cString: strerror(-result)))): start one (`martlet serve virtio-net --vhost-user \(path) --wire …`, or a virtual switch), or name another socket"
      )
    }
    try connection.negotiate()
    return connection
  }

  public var descriptor: Int32 { connection.stream.descriptor }

  /// The protocol names no limits: what an x86-64 user address can express.
  public var iovaRanges: [ClosedRange<UInt64>] { [0...(1 << 48) - 1] }

  /// Maps that follow each other in the same memory are one region: a table has eight at most.
  public func mapDMA(_ memory: DMAMemory, iova: UInt64, rights: DMARights) throws(PCIError) {
    if let last = regions.last, last.descriptor == memory.descriptor,
      last.region.guestAddress + last.region.byteCount == iova,
      last.region.offset + last.region.byteCount == memory.offset
    {
      regions[regions.count - 1].region.byteCount += memory.byteCount
    } else {
      guard regions.count < VhostUserLimits.regions else {
        throw .peer(name, reason: "vhost-user takes \(VhostUserLimits.regions) regions of memory")
      }
      regions.append(
        (
          VhostUserRegion(
            guestAddress: iova, byteCount: memory.byteCount, userAddress: iova,
            offset: memory.offset), memory.descriptor
        ))
    }
    try sendTable()
  }

  /// Takes what begins there, or the end of what ends there, out of the table.
  public func unmapDMA(iova: UInt64, byteCount: UInt64) throws(PCIError) {
    guard
      let index = regions.firstIndex(where: { entry in
        iova >= entry.region.guestAddress
          && iova + byteCount == entry.region.guestAddress + entry.region.byteCount
      })
    else { throw .system(call: "vhost-user unmapping", errno: ENOENT) }
    regions[index].region.byteCount -= byteCount
    if regions[index].region.byteCount == 0 { regions.remove(at: index) }
    if isConnected { try sendTable() }
  }

  private func sendTable() throws(PCIError) {
    try connection.send(
      .setMemoryTable, VhostUserMemoryTable(regions: regions.map(\.region)).bytes,
      descriptors: regions.map(\.descriptor))
  }

  /// Ends the connection, which ends all rings: the driver host has stopped those that it could. Waits until the
  /// back-end has closed its end too, for at most 2 s: one that does not come to it is at fault, or stopped.
  public func quiesce() throws(PCIError) {
    guard isConnected else { return }
    isConnected = false
    let isClosed = connection.stream.finish(deadline: monotonic_nanoseconds() + 2_000_000_000)
    shutdown(connection.stream.descriptor, Int32(SHUT_RDWR))
    if !isClosed { throw .peer(name, reason: "the back-end does not close the connection") }
  }

  /// A back-end has no way to say that it has stopped, other than to close the connection.
  public func recover() throws(PCIError) {
    try quiesce()
    try reconnect()
  }

  /// After the back-end has gone: connects to the one that listens there now, and tells it of the same memory.
  /// ``descriptor`` is another one then.
  /// - Parameter timeout: milliseconds that it has for each answer.
  /// - Throws: where there is none yet, or one that does not answer. To be tried again.
  public func reconnect(timeout: Int = 1000) throws(PCIError) {
    connection = try Self.connect(path, timeout)
    isConnected = true
    try sendTable()
  }
}
