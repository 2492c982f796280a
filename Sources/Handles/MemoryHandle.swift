/// A right to use some bytes of a memory file, as the broker keeps it. What its receiver holds is a ``HandleID``.
public struct MemoryHandle: Sendable {
  /// What a receiver may do.
  public enum Rights: String, Sendable {
    case read = "r"
    case readWrite = "rw"
  }

  /// Who enforces the handle.
  public enum Kind: String, Sendable {
    /// The kernel: the receiver gets a descriptor of the whole memory and maps it. What is mapped stays so.
    case mapped
    /// The kernel, for reading: the end of the handle cuts the memory to nothing, and who touches its mapping then gets
    /// SIGBUS: receiver and owner alike.
    case revocable
    /// The broker: it reads and writes for the receiver, at most this range.
    case served
  }

  /// Who may use a handle.
  public struct Receiver: Hashable, Sendable {
    public var uid: UInt32
    /// Nil: any process of the user.
    public var process: ProcessIdentity?

    public init(uid: UInt32, process: ProcessIdentity? = nil) {
      self.uid = uid
      self.process = process
    }
  }

  /// What an owner asks for.
  public struct Request: Sendable {
    public var kind: Kind
    public var rights: Rights
    public var offset: UInt64
    public var byteCount: UInt64
    public var receiver: Receiver
    /// When it ends, in nanoseconds of the broker's clock; nil: with its owner.
    public var expiry: UInt64?
    /// How often it can be opened, registered, read or written by message; nil: without limit.
    public var uses: UInt64?

    public init(
      kind: Kind, rights: Rights, offset: UInt64, byteCount: UInt64, receiver: Receiver,
      expiry: UInt64? = nil, uses: UInt64? = nil
    ) {
      self.kind = kind
      self.rights = rights
      self.offset = offset
      self.byteCount = byteCount
      self.receiver = receiver
      self.expiry = expiry
      self.uses = uses
    }
  }

  /// Counts up from 1: what people and lists call the handle by. It gives no right.
  public let number: UInt64
  /// Where its memory's descriptor is kept.
  public let memory: MemoryKey
  public let kind: Kind
  public let rights: Rights
  /// Bytes of the memory.
  public let range: Range<UInt64>
  public let receiver: Receiver
  /// The connection that made it, and whose that is.
  public let owner: UInt64
  public let ownerUID: UInt32
  public let expiry: UInt64?
  public internal(set) var usesLeft: UInt64?
  let facts: MemoryFacts
}

/// A memory file as one owner brought it. Another owner's file is never taken for it, also where the kernel gives a number
/// of a file again.
public struct MemoryKey: Hashable, Sendable {
  let owner: UInt64
  let device: UInt64
  let inode: UInt64
  let isWritable: Bool

  init(_ facts: MemoryFacts, owner: UInt64) {
    self.owner = owner
    device = facts.device
    inode = facts.inode
    isWritable = facts.isWritable
  }
}

/// Who asks: a connection, and whose the kernel says that it is.
public struct HandlePeer: Sendable {
  public var connection: UInt64
  public var uid: UInt32
  public var process: ProcessIdentity

  public init(connection: UInt64, uid: UInt32, process: ProcessIdentity) {
    self.connection = connection
    self.uid = uid
    self.process = process
  }

  func isReceiver(_ receiver: MemoryHandle.Receiver) -> Bool {
    receiver.uid == uid && (receiver.process == nil || receiver.process == process)
  }
}
