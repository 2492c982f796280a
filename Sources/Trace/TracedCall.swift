import Driver
import Memory

/// A call of a driver's verb with its arguments, as the label of a mark:
///
///     init NAME PAIRS RING MTU INTERRUPTS IOMMU [WITHOUT…]
///                                                 MTU `-` where it is left open; INTERRUPTS a sign for configuration
///                                                 changes, then one for each queue pair, + where it has an eventfd;
///                                                 IOMMU yes or no; then features that are left alone
///     start, stop, configuration, statistics
///     promiscuous on|off
///     filter ADDRESS… / ADDRESS…                  unicast / multicast
///     coalescing PACKETS MICROSECONDS
///     QUEUE take                                  the queue pair is taken out of the driver
///     QUEUE postReceive SLOT…
///     QUEUE receive ROOM                          into a burst with room for so many slots
///     QUEUE transmit SLOT…
///     QUEUE completeTransmit ROOM
///     QUEUE arm yes|no                            whether for sent packets too
///     QUEUE disarm
///     QUEUE takeBack SEGMENTS PACKETS             the room of both bursts
///
/// A slot is `SEGMENT:OFFSET:LENGTH`, and `:FLAGS:TAG` where these are not 0.
enum TracedCall: Equatable {
  case initialize(Setup)
  case start
  case stop
  case handleConfigurationChange
  case readDeviceStatistics
  case setPromiscuous(Bool)
  case setFilter(unicast: [MACAddress], multicast: [MACAddress]?)
  case setReceiveCoalescing(packets: UInt32, microseconds: UInt32)
  case pair(Int, Verb)

  /// What the driver was made with.
  struct Setup: Equatable {
    var driver: String
    var queuePairs: Int
    var ringSize: Int
    var mtu: Int?
    /// Whether there is an eventfd for configuration changes, then for each queue pair.
    var interrupts: [Bool]
    var requiresPlatformAccess: Bool
    var without: [String] = []
  }

  enum Verb: Equatable {
    case take
    case postReceive([Descriptor])
    case receive(room: Int)
    case transmit([Descriptor])
    case completeTransmit(room: Int)
    case arm(transmit: Bool)
    case disarm
    case takeBack(segments: Int, packets: Int)
  }
}

// MARK: To text

extension TracedCall: CustomStringConvertible {
  var description: String {
    switch self {
    case .initialize(let setup):
      "init \(setup.driver) \(setup.queuePairs) \(setup.ringSize) \(setup.mtu.map { "\($0)" } ?? "-") "
        + "\(String(setup.interrupts.map { $0 ? "+" : "-" })) \(yes(setup.requiresPlatformAccess))"
        + setup.without.map { " \($0)" }.joined()
    case .start: "start"
    case .stop: "stop"
    case .handleConfigurationChange: "configuration"
    case .readDeviceStatistics: "statistics"
    case .setPromiscuous(let on): "promiscuous \(on ? "on" : "off")"
    case .setFilter(let unicast, let multicast):
      (["filter"] + unicast.map(\.description) + ["/"]
        + (multicast.map { $0.map(\.description) } ?? ["all"]))
        .joined(separator: " ")
    case .setReceiveCoalescing(let packets, let microseconds):
      "coalescing \(packets) \(microseconds)"
    case .pair(let index, let verb): "\(index) \(verb)"
    }
  }
}

extension TracedCall.Verb: CustomStringConvertible {
  var description: String {
    switch self {
    case .take: "take"
    case .postReceive(let slots): "postReceive\(text(slots))"
    case .receive(let room): "receive \(room)"
    case .transmit(let slots): "transmit\(text(slots))"
    case .completeTransmit(let room): "completeTransmit \(room)"
    case .arm(let transmit): "arm \(yes(transmit))"
    case .disarm: "disarm"
    case .takeBack(let segments, let packets): "takeBack \(segments) \(packets)"
    }
  }
}

private func yes(_ value: Bool) -> String { value ? "yes" : "no" }

/// Each with a space in front.
func text(_ slots: [Descriptor]) -> String {
  slots.map { slot in
    " \(slot.segment):\(slot.offset):\(slot.length)"
      + (slot.flags.isEmpty && slot.tag == 0 ? "" : ":\(slot.flags.rawValue):\(slot.tag)")
  }.joined()
}

// MARK: From text

extension TracedCall {
  /// nil where the label is none of a call.
  init?(_ label: String) {
    var words = Words(label)
    guard let first = words.next() else { return nil }
    switch first {
    case "init":
      guard let setup = Setup(&words) else { return nil }
      self = .initialize(setup)
    case "start": self = .start
    case "stop": self = .stop
    case "configuration": self = .handleConfigurationChange
    case "statistics": self = .readDeviceStatistics
    case "promiscuous":
      guard let on = words.choice("on", "off") else { return nil }
      self = .setPromiscuous(on)
    case "filter":
      let lists = words.remainder().split(separator: "/", omittingEmptySubsequences: false)
      guard lists.count == 2, let unicast = addresses(lists[0]) else { return nil }
      if lists[1] == " all" {
        self = .setFilter(unicast: unicast, multicast: nil)
      } else {
        guard let multicast = addresses(lists[1]) else { return nil }
        self = .setFilter(unicast: unicast, multicast: multicast)
      }
    case "coalescing":
      guard let packets = words.number(UInt32.self), let time = words.number(UInt32.self) else {
        return nil
      }
      self = .setReceiveCoalescing(packets: packets, microseconds: time)
    default:
      guard let index = Int(first), let verb = Verb(&words) else { return nil }
      self = .pair(index, verb)
    }
    if !words.isEmpty { return nil }
  }
}

/// nil where one of them is none.
private func addresses(_ list: Substring) -> [MACAddress]? {
  let words = list.split(separator: " ")
  let addresses = words.compactMap { MACAddress(String($0)) }
  return addresses.count == words.count ? addresses : nil
}

extension TracedCall.Setup {
  fileprivate init?(_ words: inout Words) {
    guard let driver = words.next(), let queuePairs = words.number(Int.self),
      let ringSize = words.number(Int.self), let mtu = words.next(),
      mtu == "-" || Int(mtu) != nil, let signs = words.next(),
      signs.allSatisfy({ $0 == "+" || $0 == "-" }),
      let requiresPlatformAccess = words.choice("yes", "no")
    else { return nil }
    var without: [String] = []
    while let name = words.next() { without.append(String(name)) }
    self.init(
      driver: String(driver), queuePairs: queuePairs, ringSize: ringSize, mtu: Int(mtu),
      interrupts: signs.map { $0 == "+" }, requiresPlatformAccess: requiresPlatformAccess,
      without: without)
  }
}

extension TracedCall.Verb {
  fileprivate init?(_ words: inout Words) {
    switch words.next() {
    case "take": self = .take
    case "postReceive":
      guard let slots = words.slots() else { return nil }
      self = .postReceive(slots)
    case "receive":
      guard let room = words.number(Int.self) else { return nil }
      self = .receive(room: room)
    case "transmit":
      guard let slots = words.slots() else { return nil }
      self = .transmit(slots)
    case "completeTransmit":
      guard let room = words.number(Int.self) else { return nil }
      self = .completeTransmit(room: room)
    case "arm":
      guard let transmit = words.choice("yes", "no") else { return nil }
      self = .arm(transmit: transmit)
    case "disarm": self = .disarm
    case "takeBack":
      guard let segments = words.number(Int.self), let packets = words.number(Int.self) else {
        return nil
      }
      self = .takeBack(segments: segments, packets: packets)
    default: return nil
    }
  }
}

extension Words {
  fileprivate mutating func choice(_ yes: Substring, _ no: Substring) -> Bool? {
    switch next() {
    case yes: true
    case no: false
    default: nil
    }
  }

  /// All that is left.
  fileprivate mutating func slots() -> [Descriptor]? {
    var slots: [Descriptor] = []
    while let word = next() {
      let parts = word.split(separator: ":").map { UInt32($0) }
      guard parts.count == 3 || parts.count == 5, let segment = parts[0], let offset = parts[1],
        let length = parts[2]
      else { return nil }
      var slot = Descriptor(segment: segment, offset: offset, length: length)
      if parts.count == 5 {
        guard let flags = parts[3].flatMap({ UInt16(exactly: $0) }),
          let tag = parts[4].flatMap({ UInt16(exactly: $0) })
        else { return nil }
        slot.flags = Descriptor.Flags(rawValue: flags)
        slot.tag = tag
      }
      slots.append(slot)
    }
    return slots
  }
}
