import Channel
import Stage
import Steering

/// Source NAT for IPv4 (RFC 3022): what inside addresses send goes out from one address, and the answers find back. TCP,
/// UDP, ICMP echo, and ICMP errors about any of them.
public struct NAT44: PacketStage {
  let configuration: NATConfiguration
  var table: FlowTable
  var fragments = FragmentTable()
  private var deadline = UInt64.max

  enum Counter: Int {
    case translatedOut, translatedIn, flows, made, full, unknown, malformed, unsupported, hairpin
  }

  public var counterNames: [String] {
    [
      "translated_out", "translated_in", "flows", "flows_made", "dropped_full", "unknown",
      "malformed", "unsupported", "hairpin",
    ]
  }

  public init(_ configuration: String, _ interface: StageInterface) throws(StageError) {
    self.configuration = try NATConfiguration(configuration)
    table = FlowTable(
      maximum: self.configuration.maximumFlows, ports: self.configuration.ports)
  }

  public mutating func process(
    _ packet: inout StagePacket, _ output: inout StageOutput
  ) -> Verdict {
    let header = packet.header
    guard header.network == .ipv4 else {
      if header.network == .malformed { return drop(.malformed, &output) }
      return .pass
    }
    let verdict =
      packet.way == .transmit
      ? leave(&packet, header, &output) : arrive(&packet, header, &output)
    output.counters[Counter.flows.rawValue] = UInt64(table.count)
    if deadline == .max && table.count > 0 { deadline = output.now + Self.sweepInterval }
    return verdict
  }

  // MARK: Expired flows

  private static let sweepInterval: UInt64 = 1_000_000_000

  public var nextDeadline: UInt64 { deadline }

  public mutating func service(_ output: inout StageOutput) {
    table.sweep(at: output.now)
    output.counters[Counter.flows.rawValue] = UInt64(table.count)
    deadline = table.count > 0 ? output.now + Self.sweepInterval : .max
  }

  // MARK: From inside

  private mutating func leave(
    _ packet: inout StagePacket, _ header: PacketHeader, _ output: inout StageOutput
  ) -> Verdict {
    let source = UInt32(truncatingIfNeeded: header.source.low)
    let destination = UInt32(truncatingIfNeeded: header.destination.low)
    guard configuration.isInside(source), !configuration.isInside(destination),
      !header.destination.isMulticast, destination != .max
    else { return .pass }
    if destination == configuration.outside { return drop(.hairpin, &output) }
    let outside = NetworkAddress(ipv4: configuration.outside)
    if header.fragment == .later {
      guard [1, 6, 17].contains(header.transport) else { return drop(.unsupported, &output) }
      return finish(
        packet.rewrite(header, HeaderChange(source: outside)), .translatedOut, &output)
    }
    if header.message == .error {
      return finish(translateErrorOut(&packet, header, output.now), .translatedOut, &output)
    }
    guard let key = key(header, address: source, remote: destination) else {
      return drop(.unsupported, &output)
    }
    guard let port = outsidePort(of: key, packet, header, &output) else {
      return drop(.full, &output)
    }
    var change = HeaderChange(source: outside)
    if header.transport == 1 { change.identifier = port } else { change.sourcePort = port }
    return finish(packet.rewrite(header, change), .translatedOut, &output)
  }

  private func key(
    _ header: PacketHeader, address: UInt32, remote: UInt32
  ) -> NATFlowKey? {
    var key = NATFlowKey(
      transport: header.transport, address: address, port: header.sourcePort,
      remoteAddress: remote, remotePort: header.destinationPort)
    switch header.transport {
    case 6, 17: return key
    case 1 where header.message == .echoRequest:
      key.remotePort = 0
      return key
    default: return nil
    }
  }

  private mutating func outsidePort(
    of key: NATFlowKey, _ packet: borrowing StagePacket, _ header: PacketHeader,
    _ output: inout StageOutput
  ) -> UInt16? {
    var key = key
    if key.transport == 1 { key.port = packet.number16(at: Int(header.transportOffset) + 4) }
    if let port = forwarded(key.transport, from: key.address, key.port) { return port }
    var index = table.find(key, at: output.now)
    if index == nil {
      index = table.add(key)
      if index != nil { output.counters[Counter.made.rawValue] += 1 }
    }
    guard let index else { return nil }
    note(index, packet, header, isOutbound: true, at: output.now)
    return table[index].outsidePort
  }

  func forwarded(_ transport: UInt8, from address: UInt32, _ port: UInt16) -> UInt16? {
    for forward in configuration.forwards
    where forward.transport == transport && forward.address == address && forward.port == port {
      return forward.outsidePort
    }
    return nil
  }

  func forwarded(_ transport: UInt8, to port: UInt16) -> NATForward? {
    configuration.forwards.first { $0.transport == transport && $0.outsidePort == port }
  }

  // MARK: From outside

  private mutating func arrive(
    _ packet: inout StagePacket, _ header: PacketHeader, _ output: inout StageOutput
  ) -> Verdict {
    let source = UInt32(truncatingIfNeeded: header.source.low)
    guard UInt32(truncatingIfNeeded: header.destination.low) == configuration.outside else {
      return .pass
    }
    let identification = packet.number16(at: Int(header.networkOffset) + 4)
    if header.fragment == .later {
      guard
        let address = fragments.find(
          remote: source, identification, header.transport, at: output.now)
      else { return unknown(&output) }
      let change = HeaderChange(destination: NetworkAddress(ipv4: address))
      return finish(packet.rewrite(header, change), .translatedIn, &output)
    }
    if header.message == .error {
      guard translateErrorIn(&packet, header, output.now) else { return unknown(&output) }
      return finish(true, .translatedIn, &output)
    }
    guard let (address, port) = inside(packet, header, source, output.now) else {
      return unknown(&output)
    }
    if header.fragment == .first {
      fragments.note(
        remote: source, identification, header.transport, isFor: address, at: output.now)
    }
    var change = HeaderChange(destination: NetworkAddress(ipv4: address))
    if header.transport == 1 { change.identifier = port } else { change.destinationPort = port }
    return finish(packet.rewrite(header, change), .translatedIn, &output)
  }

  /// Whom a received packet is for.
  private mutating func inside(
    _ packet: borrowing StagePacket, _ header: PacketHeader, _ source: UInt32, _ now: UInt64
  ) -> (UInt32, UInt16)? {
    var (port, remotePort) = (header.destinationPort, header.sourcePort)
    switch header.transport {
    case 6, 17:
      if let forward = forwarded(header.transport, to: port) {
        return (forward.address, forward.port)
      }
    case 1 where header.message == .echoReply:
      (port, remotePort) = (packet.number16(at: Int(header.transportOffset) + 4), 0)
    default: return nil
    }
    guard let index = table.find(outsidePort: port, header.transport, at: now),
      table[index].key.remoteAddress == source, table[index].key.remotePort == remotePort
    else { return nil }
    note(index, packet, header, isOutbound: false, at: now)
    return (table[index].key.address, table[index].key.port)
  }

  /// A flow has had a packet: it stays longer.
  private mutating func note(
    _ index: Int, _ packet: borrowing StagePacket, _ header: PacketHeader, isOutbound: Bool,
    at now: UInt64
  ) {
    var time = configuration.timeouts.udp
    switch header.transport {
    case 6:
      let flags = packet.number8(at: Int(header.transportOffset) + 13)
      if !isOutbound { table[index].isAnswered = true }
      if flags & 1 != 0 {
        if isOutbound { table[index].insideEnded = true } else { table[index].outsideEnded = true }
      }
      if flags & 4 != 0 { table[index].wasReset = true }
      // A new connection over the same ports.
      if isOutbound && flags & 0x16 == 2 {
        table[index].wasReset = false
        table[index].insideEnded = false
        table[index].outsideEnded = false
      }
      let flow = table[index]
      let isOpen =
        flow.isAnswered && !flow.wasReset && !(flow.insideEnded && flow.outsideEnded)
      time =
        isOpen
        ? configuration.timeouts.tcp
        : min(configuration.timeouts.tcp, configuration.timeouts.tcpTransitory)
    case 1: time = configuration.timeouts.icmp
    default: break
    }
    table[index].expires = now &+ time
  }

  // MARK: Verdicts

  private func finish(
    _ isDone: Bool, _ counter: Counter, _ output: inout StageOutput
  ) -> Verdict {
    if !isDone { return drop(.unknown, &output) }
    output.counters[counter.rawValue] += 1
    return .pass
  }

  private func unknown(_ output: inout StageOutput) -> Verdict {
    output.counters[Counter.unknown.rawValue] += 1
    return configuration.passesUnknown ? .pass : .drop
  }

  private func drop(_ counter: Counter, _ output: inout StageOutput) -> Verdict {
    output.counters[counter.rawValue] += 1
    return .drop
  }
}
