import PCI

/// The words of a line, from the left.
struct Words {
  private var rest: [Substring]
  init(_ line: some StringProtocol) { rest = Substring(line).split(separator: " ") }

  var isEmpty: Bool { rest.isEmpty }
  mutating func next() -> Substring? { rest.isEmpty ? nil : rest.removeFirst() }
  /// All that is left, as it was but for repeated spaces.
  mutating func remainder() -> String {
    defer { rest = [] }
    return rest.joined(separator: " ")
  }

  mutating func number<N: FixedWidthInteger>(_ type: N.Type = N.self) -> N? {
    guard let word = next() else { return nil }
    return word.hasPrefix("0x") ? N(word.dropFirst(2), radix: 16) : N(word)
  }

  mutating func kind() -> InterruptKind? {
    switch next() {
    case "intx": .intx
    case "msi": .msi
    case "msix": .msix
    default: nil
    }
  }

  /// Takes `xCOUNT` from the end.
  mutating func repeats() -> Int {
    guard let last = rest.last, last.hasPrefix("x"), let count = Int(last.dropFirst()), count > 0
    else { return 1 }
    rest.removeLast()
    return count
  }
}

extension TraceEntry {
  /// Reads a line; nil where it is none.
  init?(_ line: String) {
    var words = Words(line)
    guard let verb = words.next() else { return nil }
    switch verb {
    case "map":
      guard let iova = words.number(UInt64.self), let byteCount = words.number(Int.self),
        byteCount >= 0
      else { return nil }
      self = .mapping(
        TraceMapping(name: words.remainder(), iova: iova, byteCount: byteCount))
    case "mem", "dma":
      guard let iova = words.number(UInt64.self), let bytes = Self.bytes(words.next() ?? ""),
        words.isEmpty
      else { return nil }
      self = .memory(iova: iova, bytes, byDevice: verb == "dma")
    case "mark":
      self = .exchange(.mark(words.remainder()), .none, repeats: 1)
    default:
      let repeats = words.repeats()
      guard let request = TraceRequest(verb, &words),
        let answer = TraceAnswer(to: request, &words), words.isEmpty
      else { return nil }
      self = .exchange(request, answer, repeats: repeats)
    }
  }

  private static func bytes(_ digits: Substring) -> [UInt8]? {
    var bytes: [UInt8] = []
    var high: UInt8?
    for character in digits {
      guard let value = character.hexDigitValue else { return nil }
      if let first = high {
        bytes.append(first << 4 | UInt8(value))
        high = nil
      } else {
        high = UInt8(value)
      }
    }
    return high == nil && !bytes.isEmpty ? bytes : nil
  }
}

extension TraceRequest {
  fileprivate init?(_ verb: Substring, _ words: inout Words) {
    switch verb {
    case "cr1", "cr2", "cr4", "cw1", "cw2", "cw4":
      guard let width = Self.width(verb), let offset = words.number(Int.self) else { return nil }
      if verb.hasPrefix("cr") {
        self = .readConfiguration(offset: offset, width)
      } else {
        guard let value = words.number(UInt32.self) else { return nil }
        self = .writeConfiguration(offset: offset, width, value)
      }
    case "r1", "r2", "r4", "w1", "w2", "w4":
      guard let width = Self.width(verb), let bar = words.number(Int.self),
        let offset = words.number(UInt64.self)
      else { return nil }
      if verb.hasPrefix("r") {
        self = .read(bar: bar, offset: offset, width)
      } else {
        guard let value = words.number(UInt64.self) else { return nil }
        self = .write(bar: bar, offset: offset, width, value)
      }
    case "bar":
      guard let bar = words.number(Int.self) else { return nil }
      self = .openRegion(bar: bar)
    case "offers": self = .interruptCapability
    case "enable":
      guard let kind = words.kind(), let signs = words.next(),
        signs.allSatisfy({ $0 == "+" || $0 == "-" })
      else { return nil }
      self = .enable(kind, connected: signs.map { $0 == "+" })
    case "disable":
      guard let kind = words.kind() else { return nil }
      self = .disable(kind)
    case "unmask": self = .unmask
    case "reset": self = .reset
    case "irq":
      guard let vector = words.number(Int.self) else { return nil }
      self = .interrupt(vector: vector)
    default: return nil
    }
  }

  private static func width(_ verb: Substring) -> RegisterWidth? {
    verb.last?.wholeNumberValue.flatMap { RegisterWidth(rawValue: $0) }
  }
}

extension TraceAnswer {
  fileprivate init?(to request: TraceRequest, _ words: inout Words) {
    switch request {
    case _ where words.isEmpty:
      switch request {
      case .readConfiguration, .read, .openRegion, .interruptCapability: return nil
      default: self = .none
      }
    case .interruptCapability:
      guard let error = Self.failure(words) else {
        guard let kind = words.kind(), let vectors = words.number(Int.self) else { return nil }
        self = .capability(InterruptCapability(kind: kind, vectors: vectors))
        return
      }
      _ = words.remainder()
      self = .failure(error)
    default:
      guard let error = Self.failure(words) else {
        guard let value = words.number(UInt64.self) else { return nil }
        self = .value(value)
        return
      }
      _ = words.remainder()
      self = .failure(error)
    }
  }

  /// `!` and why; nil where something else follows.
  private static func failure(_ all: Words) -> PCIError? {
    var words = all
    guard words.next() == "!" else { return nil }
    switch words.next() {
    case "gone": return .gone(words.remainder())
    case "no-region": return words.number(Int.self).map { .noRegion(bar: $0) }
    case "no-interrupts":
      guard let kind = words.kind(), let vectors = words.number(Int.self) else { return nil }
      return .interruptsUnsupported(kind: kind, vectors: vectors)
    case "no-reset": return .resetUnsupported
    case "system":
      guard let errno = words.number(Int32.self) else { return nil }
      return .system(call: words.remainder(), errno: errno)
    case "failed": return .peer("the recorded function", reason: words.remainder())
    default: return nil
    }
  }
}
