extension ProtocolDefinition: CustomStringConvertible {
  /// Reads `protocol NAME above=… type=N header=… [next=…] [field=…]…`.
  public init(_ text: String) throws(RuleError) {
    let words = text.split { $0 == " " || $0 == "\t" }
    guard words.first == "protocol" else {
      throw RuleError(
        word: text, problem: "is no definition", advice: "begin it with `protocol NAME`")
    }
    try self.init(words.dropFirst(), line: nil)
  }

  init(_ words: ArraySlice<Substring>, line: Int?) throws(RuleError) {
    guard let first = words.first else {
      throw RuleError(
        line: line, word: "protocol", problem: "has no name", advice: "write `protocol NAME`")
    }
    let name = try RuleWord(first, line: line).name(first)
    var (layer, type, length): (Layer?, UInt64?, HeaderLength?) = (nil, nil, nil)
    var (next, fields): (Next?, [Field]) = (nil, [])
    var seen: Set<String> = []
    for text in words.dropFirst() {
      let word = RuleWord(text, line: line)
      guard word.key == "field" || seen.insert(word.key).inserted else {
        throw word.error("\(word.key) stands there twice", "write it once")
      }
      switch word.key {
      case "above": layer = try Self.layer(word)
      case "type": type = try word.number(0...(.max))
      case "header": length = try Self.length(word)
      case "next": next = try Self.next(word)
      case "field": fields.append(try Self.field(word))
      default: throw word.error("is not known", "write above=, type=, header=, next= or field=")
      }
    }
    guard let layer, let type, let length else {
      let missing = layer == nil ? "above=" : type == nil ? "type=" : "header="
      throw RuleError(
        line: line, word: name, problem: "\(missing) is missing",
        advice: "write `protocol \(name) above=LAYER type=NUMBER header=BYTES`")
    }
    self.init(name, above: layer, type: type, headerLength: length, next: next, fields: fields)
  }

  private static func layer(_ word: RuleWord) throws(RuleError) -> Layer {
    switch word.value {
    case "ethernet": .ethernet
    case "ipv4": .ipv4
    case "ipv6": .ipv6
    case "ip": .ip
    case "udp": .udp
    case "tcp": .tcp
    default: .own(try word.name(word.value))
    }
  }

  private static let bytes: ClosedRange<UInt64> = 0...UInt64(PacketHeader.maximumBytes)

  private static func length(_ word: RuleWord) throws(RuleError) -> HeaderLength {
    let parts = word.value.split(separator: ":", omittingEmptySubsequences: false)
    switch parts.count {
    case 1: return .fixed(Int(try word.number(parts[0], bytes)))
    case 5:
      return .variable(
        try bits(word, parts[0...2]), scale: Int(try word.number(parts[3], bytes)),
        add: Int(try word.number(parts[4], bytes)))
    default:
      throw word.error("is no length", "write header=BYTES or header=OFFSET:BYTES:MASK:SCALE:ADD")
    }
  }

  private static func next(_ word: RuleWord) throws(RuleError) -> Next {
    let parts = word.value.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 3 || parts.count == 4, let last = parts.last else {
      throw word.error(
        "does not say what follows",
        "write next=OFFSET:BYTES[:MASK]:ethertype, ip-protocol or the name of a protocol")
    }
    let number = try bits(word, parts.dropLast())
    switch last {
    case "ethertype": return Next(number, .etherType)
    case "ip-protocol": return Next(number, .ipProtocol)
    default: return Next(number, .own(try word.name(last)))
    }
  }

  private static func field(_ word: RuleWord) throws(RuleError) -> Field {
    let parts = word.value.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 3 || parts.count == 4 else {
      throw word.error(
        "is no field", "write field=NAME:OFFSET:BYTES or field=NAME:OFFSET:BYTES:MASK")
    }
    return Field(try word.name(parts[0]), try bits(word, parts.dropFirst()))
  }

  private static func bits(
    _ word: RuleWord, _ parts: ArraySlice<Substring>
  ) throws(RuleError) -> BitField {
    let first = parts.startIndex
    let offset = Int(try word.number(parts[first], bytes))
    let byteCount = Int(try word.number(parts[first + 1], 1...8))
    let all = BitField.allBits(byteCount)
    let mask = parts.count == 3 ? try word.number(parts[first + 2], 1...all) : all
    return BitField(offset: offset, byteCount: byteCount, mask: mask)
  }

  public var description: String {
    var text = "protocol \(name) above=\(layer) type=\(type) header=\(headerLength)"
    if let next { text += " next=\(next.number):\(next.numbers)" }
    for field in fields { text += " field=\(field.name):\(field.bits)" }
    return text
  }
}

extension ProtocolDefinition.Layer: CustomStringConvertible {
  public var description: String {
    switch self {
    case .ethernet: "ethernet"
    case .ipv4: "ipv4"
    case .ipv6: "ipv6"
    case .ip: "ip"
    case .udp: "udp"
    case .tcp: "tcp"
    case .own(let name): name
    }
  }
}

extension ProtocolDefinition.HeaderLength: CustomStringConvertible {
  public var description: String {
    switch self {
    case .fixed(let bytes): "\(bytes)"
    case .variable(let bits, let scale, let add):
      "\(bits.offset):\(bits.byteCount):0x\(String(bits.mask, radix: 16)):\(scale):\(add)"
    }
  }
}

extension ProtocolDefinition.Numbers: CustomStringConvertible {
  public var description: String {
    switch self {
    case .etherType: "ethertype"
    case .ipProtocol: "ip-protocol"
    case .own(let name): name
    }
  }
}

extension ProtocolDefinition.BitField: CustomStringConvertible {
  public var description: String {
    "\(offset):\(byteCount)"
      + (mask == Self.allBits(byteCount) ? "" : ":0x" + String(mask, radix: 16))
  }
}
