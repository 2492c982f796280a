import Steering

/// Whether an instance has a NIC to itself.
public enum NICUse: String, Sendable, CaseIterable {
  /// All queue pairs are the instance's, and its receive part is posted to the device.
  case exclusive
  /// Several instances send and receive over the same queue pairs; each packet is copied once to whom it is for.
  case shared
}

/// What a supervisor gives a process that becomes an instance: the answer to ``AttachRequest``, and what the instance of
/// `martlet run` finds first on its control socket. Descriptors go with it (``InstanceDescriptor``).
///
/// `welcome version=2 id= mac= mtu= offloads= queues= slots= receive-bytes= arena-bytes= maximum-bytes= mode= commands=yes|no
/// [channel-queues=] [arena-address=] [credential=HEX] [claims=C1,C2,…]`
public struct Welcome: Sendable, Equatable {
  /// 2^32 segments of 1 KiB.
  public static let maximumArenaBytes = 1 << 42
  public static let maximumCredentialBytes = 64

  /// Slot index and generation: `index | generation << 8`.
  public var id: UInt32
  /// The NIC's, the first byte on the wire first.
  public var macAddress: [UInt8]
  public var mtu: Int
  /// What the device does of sums and segmentation, in the bits of the driver's offloads.
  public var offloads: UInt32
  /// Queue pairs in use; the channel may have been made for more.
  public var queues: Int
  public var channel: ChannelLayout
  /// Of the arena's receive part, which begins at 0.
  public var receiveBytes: Int
  /// Of the arena as it is now; behind the receive part comes the transmit part.
  public var arenaBytes: Int
  /// What the arena can grow to.
  public var maximumBytes: Int
  public var use: NICUse
  /// Whether there is a command channel.
  public var hasCommands: Bool
  /// Where the arena has to be mapped; nil for anywhere.
  public var arenaAddress: UInt?
  /// Goes with each command; empty for none.
  public var credential: [UInt8]
  /// What the instance has got: of what it asked for, all.
  public var claims: [Claim]

  public init(
    id: UInt32, macAddress: [UInt8], mtu: Int, offloads: UInt32, queues: Int,
    channel: ChannelLayout, receiveBytes: Int, arenaBytes: Int, maximumBytes: Int, use: NICUse,
    hasCommands: Bool = false, arenaAddress: UInt? = nil, credential: [UInt8] = [],
    claims: [Claim] = []
  ) {
    self.id = id
    self.macAddress = macAddress
    self.mtu = mtu
    self.offloads = offloads
    self.queues = queues
    self.channel = channel
    self.receiveBytes = receiveBytes
    self.arenaBytes = arenaBytes
    self.maximumBytes = maximumBytes
    self.use = use
    self.hasCommands = hasCommands
    self.arenaAddress = arenaAddress
    self.credential = credential
    self.claims = claims
  }

  /// The message.
  public var text: String {
    let mac = macAddress.map { Hexadecimal.text([$0]) }.joined(separator: ":")
    var text =
      "welcome version=\(AttachRequest.version) id=\(id) mac=\(mac) mtu=\(mtu) offloads=\(offloads)"
      + " queues=\(queues) slots=\(channel.slots) receive-bytes=\(receiveBytes)"
      + " arena-bytes=\(arenaBytes) maximum-bytes=\(maximumBytes) mode=\(use.rawValue)"
      + " commands=\(hasCommands ? "yes" : "no")"
    if channel.queues != queues { text += " channel-queues=\(channel.queues)" }
    if let arenaAddress { text += " arena-address=\(arenaAddress)" }
    if !credential.isEmpty { text += " credential=\(Hexadecimal.text(credential))" }
    if !claims.isEmpty { text += " claims=\(claims.map(\.description).joined(separator: ","))" }
    return text
  }

  /// - Parameters:
  ///   - message: not believed where it makes no sense.
  ///   - descriptorCount: descriptors that came with it; nil where they are not asked about.
  /// - Throws: also ``AttachError/refused(_:)`` where the message says so.
  public init(_ message: ControlMessage, descriptorCount: Int?) throws(AttachError) {
    if let refusal = Refusal(message) { throw .refused(refusal.reason) }
    let fields = try CheckedFields(message, word: "welcome")
    id = try fields.number("id", in: 0...(.max))
    let mac = try fields.text("mac")
    let bytes = mac.split(separator: ":", omittingEmptySubsequences: false).map {
      Hexadecimal.bytes(String($0)) ?? []
    }
    guard bytes.count == 6, bytes.allSatisfy({ $0.count == 1 }), bytes[0][0] & 1 == 0 else {
      throw .bad(name: "mac", value: mac)
    }
    macAddress = bytes.map { $0[0] }
    mtu = try fields.number("mtu", in: 68...65535)
    offloads = try fields.number("offloads", in: 0...(.max))
    queues = try fields.number("queues", in: 1...64)
    let channelQueues =
      message["channel-queues"] == nil
      ? queues : try fields.number("channel-queues", in: queues...64)
    let slots: Int = try fields.number("slots", in: 64...65536)
    guard let layout = ChannelLayout(queues: channelQueues, slots: slots) else {
      throw .bad(name: "slots", value: "\(slots)")
    }
    channel = layout
    receiveBytes = try Self.size("receive-bytes", fields)
    arenaBytes = try Self.size("arena-bytes", fields)
    maximumBytes = try Self.size("maximum-bytes", fields)
    guard receiveBytes < arenaBytes else {
      throw .bad(name: "receive-bytes", value: "\(receiveBytes)")
    }
    guard arenaBytes <= maximumBytes else {
      throw .bad(name: "maximum-bytes", value: "\(maximumBytes)")
    }
    let mode = try fields.text("mode")
    guard let use = NICUse(rawValue: mode) else { throw .bad(name: "mode", value: mode) }
    self.use = use
    let commands = message["commands"] ?? "no"
    guard ["yes", "no"].contains(commands) else { throw .bad(name: "commands", value: commands) }
    hasCommands = commands == "yes"
    arenaAddress =
      message["arena-address"] == nil
      ? nil : try fields.number("arena-address", in: 4096...(.max))
    credential = try fields.bytes("credential", upTo: Self.maximumCredentialBytes)
    claims = try AttachRequest.claims(message["claims"])
    if let descriptorCount, descriptorCount != self.descriptorCount {
      throw .descriptors(descriptorCount, needed: self.descriptorCount)
    }
  }

  private static func size(
    _ name: String, _ fields: CheckedFields
  ) throws(AttachError) -> Int {
    let bytes: Int = try fields.number(name, in: 4096...maximumArenaBytes)
    guard bytes % 4096 == 0 else { throw .bad(name: name, value: "\(bytes)") }
    return bytes
  }

  /// How many descriptors go with the message.
  public var descriptorCount: Int { (hasCommands ? 6 : 4) + queues }

  /// Where a descriptor stands among those that go with the message; nil where it does not go with it.
  public func position(of descriptor: InstanceDescriptor) -> Int? {
    switch descriptor {
    case .arena: 0
    case .channel: 1
    case .counters: 2
    case .ownDoorbell: 3
    case .commands: hasCommands ? 4 : nil
    case .commandDoorbell: hasCommands ? 5 : nil
    case .hostDoorbell(let queue):
      (0..<queues).contains(queue) ? (hasCommands ? 6 : 4) + queue : nil
    }
  }
}

/// The descriptors that go with a ``Welcome``, in this order. Those of the command channel are left out where there is
/// none, and what follows moves up.
public enum InstanceDescriptor: Hashable, Sendable {
  /// The arena's first extent: memory that nobody can shrink.
  case arena
  /// The channel's memory.
  case channel
  /// The instance's counter page.
  case counters
  /// The instance's end of a pair of sockets: readable when the instance is to wake, and read to clear it.
  case ownDoorbell
  /// The command channel's memory.
  case commands
  /// The client's end of the command channel's doorbell (``CommandDoorbell``).
  case commandDoorbell
  /// An eventfd of the instance's own that wakes the host's thread of a queue.
  case hostDoorbell(Int)
}
