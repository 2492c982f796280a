import Memory

/// A packet on its way through a stage: three slots of a ring, the same in both directions. Any thread.
///
/// The first slot is the packet's ``/Memory/Offload`` with the host's number for the packet as its tag. The second is its
/// head, in the driver host's arena, which the stage may read and write; its tag is the ``Way``. The third has the room before
/// and behind the head, and how many bytes of the packet follow it where the stage does not see them.
///
/// The stage gives each packet back once, by the transmit ring, with the way that it goes on. The head may begin and end
/// anywhere in its room then. What it says of the rest is not looked at.
public struct StagedPacket: BitwiseCopyable, Sendable, Equatable {
  /// Which way a packet goes. Raw values cross process boundaries: they do not change.
  public enum Way: UInt16, BitwiseCopyable, Sendable {
    /// From the wire to the instances.
    case receive = 0
    /// From an instance to the wire.
    case transmit = 1
    /// From the host: memory without a packet, for one that the stage makes. To the host: it is the host's again.
    case none = 2
  }

  /// The host's number for it, below ``maximumPackets``.
  public var number: UInt16
  public var way: Way
  public var metadata: Offload
  /// The device has checked its transport checksum.
  public var isChecked: Bool
  /// Where the head begins, in bytes from the start of the host's arena.
  public var position: UInt64
  /// Bytes of the head: all of the packet, or as much as the stage may see.
  public var byteCount: UInt32
  /// Bytes before and behind the head that it may grow into.
  public var roomBefore: UInt32
  public var roomBehind: UInt32
  /// Bytes of the packet behind the head.
  public var unseenBytes: UInt32
  /// What a rule has said of it; 0 for nothing.
  public var mark: UInt16

  /// Slots of a ring that a packet takes.
  public static let slots = 3
  /// Packets that one stage has of each queue at most.
  public static let maximumPackets = 1024
  /// Packets without content that it has of each queue, to make its own in.
  public static let spares = 8

  public init(
    number: UInt16, way: Way, metadata: Offload = Offload(), isChecked: Bool = false,
    position: UInt64, byteCount: UInt32, roomBefore: UInt32, roomBehind: UInt32,
    unseenBytes: UInt32 = 0, mark: UInt16 = 0
  ) {
    self.number = number
    self.way = way
    self.metadata = metadata
    self.isChecked = isChecked
    self.position = position
    self.byteCount = byteCount
    self.roomBefore = roomBefore
    self.roomBehind = roomBehind
    self.unseenBytes = unseenBytes
    self.mark = mark
  }

  /// Reads three slots that have been copied from shared memory.
  /// - Returns: nil where they are no such packet. Nothing else of what they say is checked.
  public init?(_ slots: UnsafePointer<Descriptor>) {
    guard let metadata = Offload(slots[0]), let way = Way(rawValue: slots[1].tag) else {
      return nil
    }
    let flags = Descriptor.Flags.more.union(.checksumValid)
    guard slots[1].flags.rawValue & ~flags.rawValue == 0, slots[1].flags.contains(.more),
      slots[2].flags.rawValue == 0
    else { return nil }
    self.init(
      number: metadata.tag, way: way, metadata: metadata,
      isChecked: slots[1].flags.contains(.checksumValid), position: slots[1].position,
      byteCount: slots[1].length, roomBefore: slots[2].offset, roomBehind: slots[2].length,
      unseenBytes: slots[2].segment, mark: slots[2].tag)
  }

  /// Appends its three slots, for which the burst must have room.
  public func append(to burst: inout Burst) {
    var metadata = metadata
    metadata.tag = number
    burst.append(metadata.slot)
    let unit = UInt64(Descriptor.unit)
    burst.append(
      Descriptor(
        segment: UInt32(truncatingIfNeeded: position / unit),
        offset: UInt32(truncatingIfNeeded: position % unit), length: byteCount,
        flags: isChecked ? Descriptor.Flags.more.union(.checksumValid) : .more, tag: way.rawValue))
    burst.append(
      Descriptor(segment: unseenBytes, offset: roomBefore, length: roomBehind, tag: mark))
  }
}

/// What the supervisor gives a stage's process: its descriptors by number. Behind the last one, an eventfd for each queue
/// that wakes the host's thread.
public enum StageDescriptor: Int32, Sendable, CaseIterable {
  /// To the supervisor (``ControlMessage``): the stage says `ready`, or `error TEXT` before it ends; hears `stop`.
  case control = 3
  /// The driver host's arena: packets.
  case arena = 4
  case channel = 5
  /// Counters that the stage names and sets.
  case counters = 6
  /// What it is configured with, as text: memory that is read once.
  case configuration = 7
  /// Readable when the host has news.
  case doorbell = 8
  case firstHostDoorbell = 9

  /// Counters of a stage.
  public static let counterCapacity = 64
  /// What the kernel calls the process, whatever its program.
  public static let processName = "martlet-stage"
}
