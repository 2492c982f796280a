import Channel
import Stage
import Steering

/// Answers pings to one address, before any instance sees them.
struct EchoResponder: PacketStage {
  private let address: NetworkAddress
  let counterNames = ["answered"]

  init(_ configuration: String, _ interface: StageInterface) throws(StageError) {
    var settings = try StageSettings(configuration)
    address = NetworkAddress(ipv4: try settings.require("address", like: "address=10.0.0.5").ipv4())
    try settings.checkEnd("address=")
  }

  mutating func process(_ packet: inout StagePacket, _ output: inout StageOutput) -> Verdict {
    let header = packet.header
    guard packet.way == .receive, header.network == .ipv4, header.message == .echoRequest,
      header.destination == address,
      packet.rewrite(header, HeaderChange(source: header.destination, destination: header.source))
    else { return .pass }
    // The type is the upper byte of the first word that the checksum covers.
    var change = ChecksumChange()
    packet.replace16(0, at: Int(header.transportOffset), &change)
    packet.correct(change, at: Int(header.transportOffset) + 2)
    swapStations(&packet)
    output.counters[0] += 1
    return .turn
  }

  private func swapStations(_ packet: inout StagePacket) {
    for offset in 0..<6 {
      let byte = packet.number8(at: offset)
      packet.store8(packet.number8(at: offset + 6), at: offset)
      packet.store8(byte, at: offset + 6)
    }
  }
}
