import PCI

/// What a driver, or its host, asks of a function.
enum TraceRequest: Equatable, Sendable {
  case readConfiguration(offset: Int, RegisterWidth)
  case writeConfiguration(offset: Int, RegisterWidth, UInt32)
  case openRegion(bar: Int)
  case read(bar: Int, offset: UInt64, RegisterWidth)
  case write(bar: Int, offset: UInt64, RegisterWidth, UInt64)
  case interruptCapability
  case enable(InterruptKind, connected: [Bool])
  case disable(InterruptKind)
  case unmask
  case reset
  case interrupt(vector: Int)
  case mark(String)
}

/// What it got.
enum TraceAnswer: Equatable, Sendable {
  case none
  case value(UInt64)
  case capability(InterruptCapability)
  case failure(PCIError)
}

/// A line of a trace; its text form is described at ``Trace``.
enum TraceEntry: Equatable, Sendable {
  case mapping(TraceMapping)
  case exchange(TraceRequest, TraceAnswer, repeats: Int)
  case memory(iova: UInt64, [UInt8], byDevice: Bool)
}

// MARK: To text

extension TraceRequest: CustomStringConvertible {
  var description: String {
    switch self {
    case .readConfiguration(let offset, let width): "cr\(width.rawValue) \(hex(offset, 4))"
    case .writeConfiguration(let offset, let width, let value):
      "cw\(width.rawValue) \(hex(offset, 4)) \(hex(value, 2 * width.rawValue))"
    case .openRegion(let bar): "bar \(bar)"
    case .read(let bar, let offset, let width): "r\(width.rawValue) \(bar) \(hex(offset, 4))"
    case .write(let bar, let offset, let width, let value):
      "w\(width.rawValue) \(bar) \(hex(offset, 4)) \(hex(value, 2 * width.rawValue))"
    case .interruptCapability: "offers"
    case .enable(let kind, let connected):
      "enable \(kind) \(String(connected.map { $0 ? "+" : "-" }))"
    case .disable(let kind): "disable \(kind)"
    case .unmask: "unmask"
    case .reset: "reset"
    case .interrupt(let vector): "irq \(vector)"
    case .mark(let label): "mark \(label)"
    }
  }

  /// Digits of what a read returns.
  fileprivate var digits: Int {
    switch self {
    case .readConfiguration(_, let width), .read(_, _, let width): 2 * width.rawValue
    default: 0
    }
  }
}

extension TraceEntry: CustomStringConvertible {
  var description: String {
    switch self {
    case .mapping(let mapping):
      "map \(hex(mapping.iova, 0)) \(hex(mapping.byteCount, 0)) \(mapping.name)"
    case .exchange(let request, let answer, let repeats):
      "\(request)\(Self.text(answer, request.digits))\(repeats > 1 ? " x\(repeats)" : "")"
    case .memory(let iova, let bytes, let byDevice):
      "\(byDevice ? "dma" : "mem") \(hex(iova, 0)) \(Self.digits(bytes))"
    }
  }

  private static func text(_ answer: TraceAnswer, _ digits: Int) -> String {
    switch answer {
    case .none: ""
    case .value(let value): " \(hex(value, digits))"
    case .capability(let offered): " \(offered.kind) \(offered.vectors)"
    case .failure(let error): " ! \(text(error))"
    }
  }

  private static func text(_ error: PCIError) -> String {
    switch error {
    case .gone(let name): "gone \(name)"
    case .noRegion(let bar): "no-region \(bar)"
    case .interruptsUnsupported(let kind, let vectors): "no-interrupts \(kind) \(vectors)"
    case .resetUnsupported: "no-reset"
    case .system(let call, let errno): "system \(errno) \(call)"
    default: "failed \(error)"
    }
  }

  private static func digits(_ bytes: [UInt8]) -> String {
    let digit = Array("0123456789abcdef".utf8)
    return String(
      decoding: bytes.flatMap { [digit[Int($0 >> 4)], digit[Int($0 & 15)]] }, as: UTF8.self)
  }
}

/// At least so many digits.
private func hex(_ value: some BinaryInteger, _ digits: Int) -> String {
  let text = String(value, radix: 16)
  return "0x" + String(repeating: "0", count: max(0, digits - text.count)) + text
}
