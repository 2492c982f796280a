import Channel
import Memory

/// One stage as one queue thread knows it: its end of the channel. One thread.
struct StagePort: ~Copyable {
  /// Its place among the stages, 0 to 7.
  let place: Int
  var channel: HostEnd
  let end: ChannelEnd
  /// Packets on their way to it, and slots that there is room for behind them.
  var entering = Burst(capacity: 192)
  var room = 0
  /// Slots that it has given back and that have not been looked at.
  var leaving = Burst(capacity: 96)
  var next = 0
  /// Memory that it has for packets of its own.
  var spares = 0

  init(place: Int, channel: consuming HostEnd, end: ChannelEnd) {
    self.place = place
    self.channel = channel
    self.end = end
  }

  /// Whether one more packet can be handed over now.
  mutating func hasRoom() -> Bool {
    if room < StagedPacket.slots || entering.room < StagedPacket.slots { push() }
    return room >= StagedPacket.slots && entering.room >= StagedPacket.slots
  }

  mutating func enter(_ packet: StagedPacket) {
    packet.append(to: &entering)
    room &-= StagedPacket.slots
  }

  /// Hands over what has been entered.
  mutating func push() {
    channel.receive.push(&entering)
    room = channel.receive.room() &- entering.count
  }

  /// The next packet that the stage has given back; nil where there is none.
  /// - Parameter offence: what it has done against the rules.
  mutating func takeNext(_ offence: inout EndReason) -> StagedPacket? {
    if next >= leaving.count {
      leaving.removeAll()
      next = 0
      do throws(ChannelError) {
        try channel.transmit.pop(into: &leaving)
      } catch {
        offence = .indexJump
        return nil
      }
    }
    let left = leaving.count &- next
    if left == 0 { return nil }
    guard left >= StagedPacket.slots, let packet = StagedPacket(leaving.start + next) else {
      offence = .notItsSegment
      return nil
    }
    next &+= StagedPacket.slots
    return packet
  }
}
