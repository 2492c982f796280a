import FuzzHarness
import PlainClassifier
import Steering

/// The text of a rule set.
let rules = FuzzTarget("rules") { input in
  do throws(RuleError) {
    let set = try RuleSet(input.text)
    require((try? RuleSet(set.description)) == set, "\(set) is not what it was")
    _ = try set.remarks()
    _ = try Classifier(set)
  } catch {
    _ = error.description
  }
}

/// A frame and rules on it, beside the plain classifier. What rules ask for is made of numbers of the input, so that most
/// of them can stand.
let classifier = FuzzTarget("classifier") { input in
  var input = input
  var set = (input.number(UInt8.self) & 1 == 0 ? nil : try? RuleSet(definitions)) ?? RuleSet()
  for number in 0..<Int(input.number(UInt8.self) & 31) {
    let rule = rule(number, &input)
    let alone = RuleSet(protocols: set.protocols, rules: [rule])
    if (try? alone.check()) != nil { set.rules.append(rule) }
  }
  do throws(RuleError) {
    let classifier = try Classifier(set)
    let bytes = input.bytes
    // Of exactly that size, so that a byte behind the end is seen.
    let frame = UnsafeMutableRawPointer.allocate(byteCount: max(1, bytes.count), alignment: 1)
    defer { frame.deallocate() }
    frame.copyMemory(from: bytes, byteCount: bytes.count)
    let packet = PacketHeader(frame: frame, byteCount: bytes.count)
    let found = classifier.view.match(packet, frame: frame, byteCount: bytes.count)
    let expected = set.plainMatch(bytes)
    require(found == expected, "\(set)\(bytes) hits \(found), not \(expected)")
  } catch {
    require(false, error.description)
  }
}

private let definitions = """
  protocol shim above=ethernet type=0x88b5 header=6 next=4:2:ethertype field=label:0:4:0xfffff000
  protocol vx above=udp type=4789 header=8 next=0:1:vx field=vni:4:4:0xffffff00
  protocol inner above=vx type=7 header=4 next=3:1:ethertype field=word:0:4
  protocol ext above=ip type=253 header=1:1:0xf0:4:4 next=0:1:ip-protocol field=late:8:2
  protocol line above=tcp type=80 header=3 field=verb:0:3
  """

/// Each bit of the first number is a condition.
private func rule(_ number: Int, _ input: inout FuzzInput) -> Rule {
  let asked = input.number(UInt16.self)
  var match = RuleMatch()
  func value() -> UInt8 { input.number() }
  func range() -> ClosedRange<UInt16> {
    let first = input.number(UInt16.self)
    return first...first + min(.max - first, UInt16(value()))
  }
  func prefix() -> AddressPrefix {
    let length = value() & 63
    let address = input.number(UInt32.self)
    let kept = length >= 32 ? 32 : length
    let ones: UInt32 = kept == 0 ? 0 : ~0 << UInt32(32 - kept)
    return length < 48
      ? AddressPrefix(NetworkAddress(ipv4: address & ones), length: kept)
      : AddressPrefix(NetworkAddress(ipv6High: UInt64(address) << 32, low: 0), length: length)
  }
  if asked & 1 > 0 { match.etherType = input.number() }
  if asked & 2 > 0 { match.vlan = value() & 1 > 0 ? .any : TagPattern.none }
  if asked & 4 > 0 { match.innerVLAN = .ids(0...input.number()) }
  if asked & 8 > 0 { match.sourceStation = StationPattern(UInt64(value()), mask: 0xff) }
  if asked & 16 > 0 { match.source = prefix() }
  if asked & 32 > 0 { match.destination = prefix() }
  if asked & 64 > 0 { match.transport = value() }
  if asked & 128 > 0 { match.fragment = FragmentPattern.allCases[Int(value() & 3)] }
  if asked & 256 > 0 { match.sourcePorts = range() }
  if asked & 512 > 0 { match.destinationPorts = range() }
  if asked & 1024 > 0 { match.messageType = value() }
  if asked & 2048 > 0 { match.differentiatedServices = value() & 63 }
  let headers = ["shim", "vx", "inner", "ext", "line"]
  if asked & 4096 > 0 { match.header = headers[Int(value()) % 5] }
  let fields = ["label", "vni", "word", "late", "verb"]
  if asked & 8192 > 0 {
    let place = Int(value()) % 5
    let masked = UInt64(value())
    match.fields.append(FieldPattern(headers[place], fields[place], masked, mask: masked))
  }
  return Rule(name: "r\(number)", priority: UInt32(asked >> 14), match: match)
}
