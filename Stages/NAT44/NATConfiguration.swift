import Stage
import Steering

/// What a NAT44 is configured with.
struct NATConfiguration {
  /// The address that the world sees, in host byte order.
  var outside: UInt32 = 0
  /// The addresses behind it.
  var inside: UInt32 = 0
  var insideMask: UInt32 = 0
  var ports: ClosedRange<UInt16> = 40000...49999
  var maximumFlows = 8192
  var timeouts = NATTimeouts()
  var forwards: [NATForward] = []
  /// Packets to the outside address that are nobody's go on as they are.
  var passesUnknown = false

  private enum Unknown: String, CaseIterable {
    case drop
    case pass
  }

  init(_ text: String) throws(StageError) {
    var settings = try StageSettings(text)
    outside = try settings.require("outside", like: "outside=198.51.100.1").ipv4()
    try readInside(settings.require("inside", like: "inside=10.0.0.0/24"))
    if let setting = try settings.take("ports") { ports = try Self.ports(setting) }
    if let setting = try settings.take("flows") {
      maximumFlows = Int(try setting.number(1...65536))
    }
    if let setting = try settings.take("tcp-timeout") { timeouts.tcp = try Self.time(setting) }
    if let setting = try settings.take("udp-timeout") { timeouts.udp = try Self.time(setting) }
    if let setting = try settings.take("icmp-timeout") { timeouts.icmp = try Self.time(setting) }
    passesUnknown = try settings.take("unknown")?.choice(of: Unknown.self) == .pass
    for setting in settings.takeAll("forward") { forwards.append(try forward(setting)) }
    try settings.checkEnd(
      "outside=, inside=, ports=, flows=, forward=, unknown=, tcp-timeout=, udp-timeout=, "
        + "icmp-timeout=")
  }

  func isInside(_ address: UInt32) -> Bool { address & insideMask == inside }

  private mutating func readInside(_ setting: StageSetting) throws(StageError) {
    let parts = setting.value.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2 else {
      throw setting.error("is no prefix", "write inside=10.0.0.0/24")
    }
    let address = try setting.ipv4(parts[0])
    insideMask = ~0 << UInt32(32 - (try setting.number(parts[1], 8...32)))
    guard address & insideMask == address else {
      throw setting.error(
        "the address has bits behind its prefix",
        "write inside=\(NetworkAddress(ipv4: address & insideMask))/\(parts[1])")
    }
    inside = address
    if isInside(outside) {
      throw setting.error("the outside address is in it", "choose one of the two otherwise")
    }
  }

  private static func ports(_ setting: StageSetting) throws(StageError) -> ClosedRange<UInt16> {
    let ends = setting.value.split(separator: "-", omittingEmptySubsequences: false)
    guard ends.count == 2 else { throw setting.error("is no range", "write ports=40000-49999") }
    let first = try setting.number(ends[0], 1...65535)
    let last = try setting.number(ends[1], 1...65535)
    guard first <= last else {
      throw setting.error("the range ends before it begins", "write the lower number first")
    }
    return UInt16(first)...UInt16(last)
  }

  /// Seconds, as nanoseconds.
  private static func time(_ setting: StageSetting) throws(StageError) -> UInt64 {
    try setting.number(1...604_800) * 1_000_000_000
  }

  private func forward(_ setting: StageSetting) throws(StageError) -> NATForward {
    let parts = setting.value.split(separator: ":", omittingEmptySubsequences: false)
    let example = "write forward=tcp:8080:10.0.0.5:80"
    guard parts.count == 4 else { throw setting.error("is no forward", example) }
    guard let transport = ["tcp": UInt8(6), "udp": 17][String(parts[0])] else {
      throw setting.error("`\(parts[0])` is no protocol with ports", example)
    }
    let forward = NATForward(
      transport: transport, outsidePort: UInt16(try setting.number(parts[1], 1...65535)),
      address: try setting.ipv4(parts[2]),
      port: UInt16(try setting.number(parts[3], 1...65535)))
    guard isInside(forward.address) else {
      throw setting.error("`\(parts[2])` is not inside", "forward to an address of inside=")
    }
    guard !ports.contains(forward.outsidePort) else {
      throw setting.error(
        "port \(parts[1]) is one of ports=", "take another one, or a smaller range of ports")
    }
    for other in forwards where other.transport == transport {
      guard other.outsidePort != forward.outsidePort,
        other.address != forward.address || other.port != forward.port
      else { throw setting.error("it is forwarded already", "forward each port once") }
    }
    return forward
  }
}

/// A port of the outside address that is always that of one inside.
struct NATForward {
  var transport: UInt8
  var outsidePort: UInt16
  var address: UInt32
  var port: UInt16
}

/// How long a flow stays without a packet, in nanoseconds.
struct NATTimeouts {
  /// Of a connection that both sides have sent over and not both ended (RFC 5382, REQ-5).
  var tcp: UInt64 = 7440 * 1_000_000_000
  /// Of other connections (the same).
  var tcpTransitory: UInt64 = 240 * 1_000_000_000
  /// RFC 4787, REQ-5.
  var udp: UInt64 = 300 * 1_000_000_000
  /// RFC 5508, REQ-2.
  var icmp: UInt64 = 60 * 1_000_000_000
}
