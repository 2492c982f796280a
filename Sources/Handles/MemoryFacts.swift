import CLinux
import Glibc

/// What the kernel says of a memory file and of one descriptor of it.
public struct MemoryFacts: Hashable, Sendable {
  /// The file system of the file.
  public var device: UInt64
  /// The file's number there, its own as long as it is open somewhere.
  public var inode: UInt64
  /// Its size.
  public var byteCount: UInt64
  /// Bytes of the pages that it is made of: 4096, or those of huge pages.
  public var pageSize: UInt64
  /// F_SEAL_*.
  public var seals: Int32
  /// Whether the descriptor is open for reading.
  public var isReadable: Bool
  /// Whether it is open for writing.
  public var isWritable: Bool
  /// The file's owner, who may open it anew.
  public var ownerUID: UInt32
  /// The file's permission bits: who else may.
  public var mode: UInt32

  /// - Parameter descriptor: stays the caller's.
  /// - Throws: ``HandleRefusal/notMemory``.
  public init(inspecting descriptor: Int32) throws(HandleRefusal) {
    // First of all whether it is memory: a file system in user space could let the other questions wait for ever.
    let seals = linux_fcntl(descriptor, LINUX_F_GET_SEALS, 0)
    let flags = linux_fcntl(descriptor, F_GETFL, 0)
    guard seals >= 0, flags >= 0, flags & LINUX_O_PATH == 0 else { throw .notMemory }
    var status = stat()
    guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
      status.st_size >= 0
    else { throw .notMemory }
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    byteCount = UInt64(status.st_size)
    pageSize = UInt64(max(4096, status.st_blksize))
    self.seals = seals
    isReadable = flags & O_ACCMODE != O_WRONLY
    isWritable = flags & O_ACCMODE != O_RDONLY
    ownerUID = status.st_uid
    mode = status.st_mode & 0o7777
  }

  /// No memory at all, to be filled in.
  static let zero = MemoryFacts()

  private init() {
    (device, inode, byteCount, pageSize, seals) = (0, 0, 0, 4096, 0)
    (isReadable, isWritable, ownerUID, mode) = (false, false, 0, 0)
  }

  /// Whether all of these seals are set.
  func has(_ wanted: Int32...) -> Bool { wanted.allSatisfy { seals & $0 != 0 } }

  /// Whether nobody can write who has no writable mapping yet.
  var forbidsNewWriters: Bool {
    seals & (Int32(LINUX_F_SEAL_FUTURE_WRITE) | Int32(LINUX_F_SEAL_WRITE)) != 0
  }
}
