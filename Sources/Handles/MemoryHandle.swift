/// A right to use some bytes of a memory file, as the broker keeps it. What its receiver holds is a ``HandleID``.
public struct MemoryHandle: Sendable {
  /// What a receiver may do.
  public enum Rights: String, Sendable {
    /// Reading only.
    case read = "r"
    /// Reading and writing.
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
    /// The user, as the broker sees it.
    public var uid: UInt32
    /// Nil: any process of the user.
    public var process: ProcessIdentity?

    /// Any process of a user, or one.
    public init(uid: UInt32, process: ProcessIdentity? = nil) {
      self.uid = uid
      self.process = process
    }
  }

  /// What an owner asks for.
  public struct Request: Sendable {
    /// Who is to enforce it.
    public var kind: Kind
    /// What the receiver may do.
    public var rights: Rights
    /// The first byte, in the memory.
    public var offset: UInt64
    /// How many bytes, more than 0.
    public var byteCount: UInt64
    /// Who may use it.
    public var receiver: Receiver
    /// When it ends, in nanoseconds of the broker's clock; nil: with its owner.
    public var expiry: UInt64?
    /// How often it can be opened, registered, read or written by message; nil: without limit.
    public var uses: UInt64?

    /// All that an owner says; without a limit of time or number where none is given.
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
  /// Who enforces it.
  public let kind: Kind
  /// What the receiver may do.
  public let rights: Rights
  /// Bytes of the memory.
  public let range: Range<UInt64>
  /// Who may use it.
  public let receiver: Receiver
  /// The connection that made it.
  public let owner: UInt64
  /// That connection's user.
  public let ownerUID: UInt32
  /// When it ends, in nanoseconds of the broker's clock.
  public let expiry: UInt64?
  /// How often it can still be used; nil: without limit.
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
  /// The connection's number, its own for as long as the broker runs.
  public var connection: UInt64
  /// The user that connected.
  public var uid: UInt32
  /// The process that connected.
  public var process: ProcessIdentity

  /// What the kernel has said of a connection.
  public init(connection: UInt64, uid: UInt32, process: ProcessIdentity) {
    self.connection = connection
    self.uid = uid
    self.process = process
  }

  func isReceiver(_ receiver: MemoryHandle.Receiver) -> Bool {
    receiver.uid == uid && (receiver.process == nil || receiver.process == process)
  }
}
