import Channel
import Stage

/// Puts what is sent into a VLAN, and takes what is received out of it (IEEE 802.1Q, 9.6).
public struct VLANTagger: PacketStage {
  private let vlan: UInt16
  private let tag: UInt32
  private let others: Others

  private enum Others: String, CaseIterable {
    case drop
    case pass
  }

  private enum Counter: Int {
    case tagged, untagged, withoutTag, ofOtherVLANs, withoutRoom, malformed
  }

  public var counterNames: [String] {
    ["tagged", "untagged", "without_tag", "of_other_vlans", "without_room", "malformed"]
  }

  public init(_ configuration: String, _ interface: StageInterface) throws(StageError) {
    var settings = try StageSettings(configuration)
    vlan = UInt16(try settings.require("vlan", like: "vlan=42").number(1...4094))
    let priority = UInt32(try settings.take("priority")?.number(0...7) ?? 0)
    others = try settings.take("others")?.choice(of: Others.self) ?? .drop
    try settings.checkEnd("vlan=, priority=, others=")
    tag = 0x8100_0000 | priority << 13 | UInt32(vlan)
  }

  public mutating func process(
    _ packet: inout StagePacket, _ output: inout StageOutput
  ) -> Verdict {
    guard packet.has(14, at: 0) else { return drop(.malformed, &output) }
    return packet.way == .transmit ? push(&packet, &output) : pop(&packet, &output)
  }

  /// A tag goes behind the two addresses, before others that may be there: an instance does not leave its VLAN.
  private func push(_ packet: inout StagePacket, _ output: inout StageOutput) -> Verdict {
    guard packet.insert(4, at: 12) else { return drop(.withoutRoom, &output) }
    packet.store32(tag, at: 12)
    output.counters[Counter.tagged.rawValue] += 1
    return .pass
  }

  private func pop(_ packet: inout StagePacket, _ output: inout StageOutput) -> Verdict {
    guard packet.number16(at: 12) == 0x8100 else {
      return others == .pass ? .pass : drop(.withoutTag, &output)
    }
    guard packet.has(18, at: 0) else { return drop(.malformed, &output) }
    let found = packet.number16(at: 14) & 0xfff
    // A tag of VLAN 0 says a priority and no VLAN.
    guard found == vlan else {
      return others == .pass ? .pass : drop(found == 0 ? .withoutTag : .ofOtherVLANs, &output)
    }
    guard packet.remove(4, at: 12) else { return drop(.malformed, &output) }
    output.counters[Counter.untagged.rawValue] += 1
    return .pass
  }

  private func drop(_ counter: Counter, _ output: inout StageOutput) -> Verdict {
    output.counters[counter.rawValue] += 1
    return .drop
  }
}
