/// A packet's part in a PDU.
struct PDUPiece {
  /// The whole packet.
  var packet: [UInt8]
  /// The packet's number, counted as packets entered the link.
  var ordinal: Int
  var range: Range<Int>
  var isFirst: Bool { range.lowerBound == 0 }
  var isLast: Bool { range.upperBound == packet.count }
}

/// A protocol data unit (RadioLink.md, section 4).
struct PDU {
  /// Counted from 0 without wrapping; the sequence number is its remainder.
  var number: UInt64
  var pieces: [PDUPiece]
  /// Transmissions so far.
  var attempts: UInt64 = 0

  var byteCount: Int { pieces.reduce(0) { $0 + $1.range.count } }
  /// What it takes on the link, header included.
  var linkBytes: Int { 2 + 5 * pieces.count + byteCount }
}

/// One direction of the link: its sender, the air, and what its receiver has accepted (section 4).
///
/// Deterministic: it does something at ``nextEvent`` only, and loses what a function of the seed, the PDU's number and
/// the number of transmissions says.
struct RadioBearer {
  private let options: RadioLinkOptions
  private let seed: UInt64
  /// Packets that are not wholly in PDUs yet, with the time at which they enter.
  private var queue: [(time: UInt64, ordinal: Int, packet: [UInt8])] = []
  private var queueHead = 0
  /// Bytes of the first of them that are in PDUs.
  private var cut = 0
  private var nextNumber: UInt64 = 0
  /// PDUs to be sent again, by the earliest time.
  private var repetitions: [(time: UInt64, pdu: PDU)] = []
  /// In order of arrival, since the delay is the same for all.
  private var air: [(time: UInt64, pdu: PDU)] = []
  private var airIsFreeAt: UInt64 = 0
  /// PDUs above the lower edge that the receiver has accepted.
  private var accepted: Set<UInt64> = []
  /// The first PDU that the receiver has not accepted.
  private(set) var lowerEdge: UInt64 = 0

  private(set) var entered = 0
  private(set) var transmissions: UInt64 = 0
  private(set) var losses: UInt64 = 0
  private(set) var refusals: UInt64 = 0
  /// Whether ``hitPackets`` is kept.
  var recordsLosses = false
  /// Ordinals of the packets of which a PDU has been lost or refused.
  private(set) var hitPackets: Set<Int> = []

  init(_ options: RadioLinkOptions, direction: UInt64) {
    self.options = options
    seed = mix(options.seed &+ direction &* 0x9e37_79b9_7f4a_7c15)
  }

  /// Packets that wait to be put into PDUs.
  var waiting: Int { queue.count - queueHead }

  /// Packets enter one after the other: never before the one before.
  mutating func enter(_ packet: [UInt8], at time: UInt64) {
    queue.append((max(time, queue.last?.time ?? 0), entered, packet))
    entered += 1
  }

  /// When something happens next; nil when nothing does.
  var nextEvent: UInt64? {
    let transmission = nextTransmission
    guard let arrival = air.first?.time else { return transmission }
    return transmission.map { min($0, arrival) } ?? arrival
  }

  private var nextTransmission: UInt64? {
    var ready = repetitions.first?.time
    if queueHead < queue.count, nextNumber < lowerEdge + options.window {
      ready = min(ready ?? .max, queue[queueHead].time)
    }
    return ready.map { max($0, airIsFreeAt) }
  }

  /// Does what happens at ``nextEvent``.
  /// - Parameter accept: whether the receiver takes the PDU; one that it does not take is repeated.
  mutating func runNextEvent(_ accept: (PDU, _ isAtLowerEdge: Bool) -> Bool) {
    let transmission = nextTransmission
    if let arrival = air.first, transmission.map({ arrival.time <= $0 }) ?? true {
      air.removeFirst()
      if accept(arrival.pdu, arrival.pdu.number == lowerEdge) {
        noteAccepted(arrival.pdu.number)
      } else {
        refusals += 1
        repeatLater(arrival.pdu, at: arrival.time + options.feedbackDelay)
      }
    } else if let transmission {
      transmit(at: transmission)
    }
  }

  private mutating func noteAccepted(_ number: UInt64) {
    accepted.insert(number)
    while accepted.remove(lowerEdge) != nil { lowerEdge += 1 }
  }

  private mutating func transmit(at time: UInt64) {
    // Repetitions come before anything new.
    let isRepetition = repetitions.first.map { $0.time <= time } ?? false
    var pdu = isRepetition ? repetitions.removeFirst().pdu : makePDU(at: time)
    pdu.attempts += 1
    transmissions += 1
    airIsFreeAt =
      time + UInt64(pdu.linkBytes) * 8 * 1_000_000_000 / options.bitsPerSecond
    if isLost(pdu) {
      losses += 1
      repeatLater(pdu, at: airIsFreeAt + options.feedbackDelay)
    } else {
      air.append((airIsFreeAt + options.delay, pdu))
    }
  }

  private mutating func repeatLater(_ pdu: PDU, at time: UInt64) {
    if recordsLosses { hitPackets.formUnion(pdu.pieces.map(\.ordinal)) }
    let index = repetitions.firstIndex { $0.time > time } ?? repetitions.count
    repetitions.insert((time, pdu), at: index)
  }

  private func isLost(_ pdu: PDU) -> Bool {
    let draw = mix(seed ^ mix(pdu.number &* 64 &+ pdu.attempts))
    return Double(draw >> 11) * 0x1p-53 < options.loss
  }

  /// The next new PDU: of the packets that have entered, as much as fits.
  private mutating func makePDU(at time: UInt64) -> PDU {
    var pieces: [PDUPiece] = []
    var room = options.payloadBytes
    while room > 0, pieces.count < 16, queueHead < queue.count, queue[queueHead].time <= time {
      let (_, ordinal, packet) = queue[queueHead]
      let left = packet.count - cut
      // A packet's headers lie in its first piece.
      if cut == 0 && room < min(left, 96) { break }
      let count = min(left, room)
      pieces.append(PDUPiece(packet: packet, ordinal: ordinal, range: cut..<cut + count))
      room -= count
      cut += count
      if cut == packet.count {
        cut = 0
        dropFirst()
      }
    }
    defer { nextNumber += 1 }
    return PDU(number: nextNumber, pieces: pieces)
  }

  private mutating func dropFirst() {
    queue[queueHead].packet = []
    queueHead += 1
    if queueHead > 1024 && queueHead * 2 > queue.count {
      queue.removeFirst(queueHead)
      queueHead = 0
    }
  }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
private func mix(_ value: UInt64) -> UInt64 {
  var z = value &+ 0x9e37_79b9_7f4a_7c15
  z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
  z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
  return z ^ z >> 31
}
