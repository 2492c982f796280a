import PCI

/// All that passed between a driver and its function in a run, as text that people can read, compare and shorten.
///
/// The first line is `martlet-trace 1`; the number is the format's version. Then one entry a line, in the order of
/// events. Empty lines and lines that begin with `#` mean nothing. Numbers are hexadecimal with `0x`, or decimal;
/// register widths are in bytes.
///
///     map IOVA BYTES NAME      memory that the device may reach; before all else
///     cr2 OFFSET VALUE         read of configuration space (cr1, cr2, cr4)
///     cw2 OFFSET VALUE         write to configuration space (cw1, cw2, cw4)
///     bar NUMBER BYTES         the region behind a BAR was opened
///     r4 BAR OFFSET VALUE      read of a register (r1, r2, r4)
///     w4 BAR OFFSET VALUE      write to a register (w1, w2, w4)
///     offers KIND VECTORS      which interrupts the function has: intx, msi, msix
///     enable KIND +-+          interrupts enabled; a sign for each vector, + where it has an eventfd
///     disable KIND             interrupts disabled
///     unmask                   INTx unmasked
///     reset                    function reset
///     irq VECTOR               the driver's host took an interrupt
///     mark LABEL               a point that the driver's host named: a call of the driver's, or what came of it
///                              (``TracedDriver``)
///     dma IOVA BYTES           memory that the device changed while the driver waited for the access above; in
///                              hexadecimal digits, without 0x
///     mem IOVA BYTES           memory that driver or device changed since the line above
///
/// A read that was repeated with the same result ends with `xCOUNT`. A call that failed ends with `!` and why in place
/// of its result: `gone NAME`, `no-region BAR`, `no-interrupts KIND VECTORS`, `no-reset`, `system ERRNO CALL`, or
/// `failed TEXT`.
public struct Trace: Sendable {
  public static let header = "martlet-trace 1"

  /// An entry and the line that it stands on, counted from 1.
  struct Line: Sendable {
    var number: Int
    var entry: TraceEntry
  }

  let lines: [Line]

  /// The memory that the device could reach: what a replay has to offer, at the same IOVAs.
  public var mappings: [TraceMapping] {
    lines.compactMap { if case .mapping(let mapping) = $0.entry { mapping } else { nil } }
  }

  /// Labels of the points that the host named, in order.
  public var labels: [String] {
    lines.compactMap {
      if case .exchange(.mark(let label), _, _) = $0.entry { label } else { nil }
    }
  }

  public init(text: some StringProtocol) throws(TraceError) {
    var lines: [Line] = []
    var number = 0
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      number += 1
      if number == 1 {
        guard line == Self.header else { throw .otherFormat(firstLine: String(line.prefix(80))) }
      } else if !line.isEmpty && !line.hasPrefix("#") {
        guard let entry = TraceEntry(String(line)) else {
          throw .malformed(line: number, text: String(line.prefix(80)))
        }
        lines.append(Line(number: number, entry: entry))
      }
    }
    self.lines = lines
  }
}

/// Memory that a device may reach, by where it lies for the device.
public struct TraceMapping: Equatable, Sendable {
  public var name: String
  public var iova: UInt64
  public var byteCount: Int
}

/// Why a trace is of no use.
public enum TraceError: Error, Equatable, Sendable {
  case otherFormat(firstLine: String)
  case malformed(line: Int, text: String)
  /// The replay does not offer memory that the recorded device could reach.
  case missingMemory(TraceMapping)
  /// It is not the trace of a driver's run with mappings named rings and arena.
  case noDriver
}

extension TraceError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .otherFormat(let line): "the first line is not `\(Trace.header)` but `\(line)`"
    case .malformed(let line, let text): "line \(line) is no entry of a trace: \(text)"
    case .missingMemory(let mapping):
      "the trace needs \(mapping.byteCount) bytes at IOVA \(hexadecimal(mapping.iova)) (\(mapping.name))"
    case .noDriver: "the trace is none of a driver's run: make one with `martlet run --record`"
    }
  }
}

func hexadecimal(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
