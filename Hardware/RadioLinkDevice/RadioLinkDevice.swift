import EmulatedPCI
import PCI
import Wire

/// The model of a RadioLink function (Drivers/RadioLink/RadioLink.md): the modem, the link with its losses, and the far
/// end, which a wire leads to. Strict: what the driver does against the page is recorded in ``violations``.
///
/// Time is virtual and moves with the work: a step does what comes next and sets ``now`` to when it happens.
public final class RadioLinkDevice: EmulatedFunction {
  public let options: RadioLinkOptions
  private let wire: any FrameWire
  public internal(set) var violations = ViolationRecord("RadioLink.md")
  public internal(set) var failure = RadioLinkFailure.none
  public private(set) var linkIsUp = true
  public private(set) var isRunning = false
  /// Nanoseconds of virtual time since the reset.
  public private(set) var now: UInt64 = 0

  /// Far end to driver, and driver to far end.
  public internal(set) var receivedPDUs: UInt64 = 0
  public internal(set) var doorbells: UInt64 = 0
  /// Packets that the driver has sent, whole and in order at the far end.
  public private(set) var deliveredPackets: UInt64 = 0
  private var downlink: RadioBearer
  private var uplink: RadioBearer
  private var farEnd = FarEnd()

  var words = [UInt32](repeating: 0, count: RegisterTable.RingWord.count)
  var receive = RingProgress()
  var transmit = RingProgress()
  private var events: UInt32 = 0
  private var armed: UInt32 = 0
  private var recordsLosses = false
  /// A packet of the transmit ring whose last descriptor has not been read.
  var outgoing: [UInt8] = []

  /// Numbers of a ring that count up and wrap.
  struct RingProgress {
    /// Descriptors that the driver has written.
    var tail: UInt32 = 0
    /// Descriptors that the device has used.
    var head: UInt32 = 0
    var pending: UInt32 { tail &- head }
  }

  public init(wire: any FrameWire, options: RadioLinkOptions = RadioLinkOptions()) {
    precondition((256...1536).contains(options.payloadBytes) && (0..<1).contains(options.loss))
    precondition((16...2048).contains(options.window) && options.window.nonzeroBitCount == 1)
    precondition((68...9000).contains(options.mtu) && options.bitsPerSecond > 0)
    self.wire = wire
    self.options = options
    downlink = RadioBearer(options, direction: 0)
    uplink = RadioBearer(options, direction: 1)
    super.init(
      configuration: ConfigurationSpace(
        vendor: RegisterTable.vendor, device: RegisterTable.device,
        classCode: RegisterTable.classCode, revision: 1, subsystem: 1),
      bars: [0: 4096], vectors: 2, interruptBAR: 1)
  }

  // MARK: The far end

  /// The far end sends a packet at a time to come, or now.
  public func send(_ packet: [UInt8], at time: UInt64) {
    downlink.enter(packet, at: max(time, now))
  }

  /// Keeps a record of the packets towards the driver that a loss has hit, from the next reset on.
  public func recordLosses() {
    recordsLosses = true
    downlink.recordsLosses = true
  }

  /// Numbers of the packets towards the driver, in order of ``send(_:at:)``, of which a PDU was lost.
  public var hitPackets: Set<Int> { downlink.hitPackets }
  /// Transmissions of PDUs that were lost on the way to the driver.
  public var lostPDUs: UInt64 { downlink.losses }
  /// PDUs that found too few receive buffers.
  public var pdusWithoutBuffer: UInt64 { downlink.refusals }
  /// Transmissions of PDUs towards the far end, and those of them that were lost.
  public var sentPDUs: UInt64 { uplink.transmissions }
  public var lostSentPDUs: UInt64 { uplink.losses }

  // MARK: Work

  public override func step() -> Bool {
    guard isRunning, linkIsUp, failure == .none else { return drainWire() }
    let fetched = fetchPackets()
    let entered = takeFromWire()
    return runNextEvent(before: .max) || fetched || entered
  }

  /// Does all that happens up to a time, and lets that be the time.
  public func advance(to time: UInt64) {
    guard isRunning, linkIsUp else { return }
    repeat {
      _ = fetchPackets()
      _ = takeFromWire()
    } while failure == .none && runNextEvent(before: time)
    now = max(now, time)
  }

  private func runNextEvent(before limit: UInt64) -> Bool {
    let down = downlink.nextEvent ?? .max
    let up = uplink.nextEvent ?? .max
    guard min(down, up) != .max, min(down, up) <= limit else { return false }
    now = max(now, min(down, up))
    if down <= up {
      downlink.runNextEvent { pdu, isAtLowerEdge in
        deliver(pdu, isAtLowerEdge: isAtLowerEdge)
      }
    } else {
      uplink.runNextEvent { pdu, _ in
        for packet in farEnd.take(pdu) {
          deliveredPackets += 1
          _ = sendToWire(packet)
        }
        return true
      }
    }
    return true
  }

  /// Whole packets of the transmit ring, while the uplink's queue has room.
  private func fetchPackets() -> Bool {
    var worked = false
    while uplink.waiting < 256, failure == .none, let packet = fetchPacket() {
      worked = true
      uplink.enter(packet, at: now)
    }
    if worked { notify(RegisterTable.transmitArm) }
    return worked
  }

  private func takeFromWire() -> Bool {
    var entered = false
    while downlink.waiting < 256, let packet = receiveFromWire(wire, mtu: Int(options.mtu)) {
      downlink.enter(packet, at: now)
      entered = true
    }
    return entered
  }

  /// A link that is down lets what the wire brings pass by.
  private func drainWire() -> Bool {
    var drained = 0
    while drained < 64, receiveFromWire(wire, mtu: Int(options.mtu)) != nil { drained += 1 }
    return drained > 0
  }

  private func sendToWire(_ packet: [UInt8]) -> Bool { sendFrame(packet, to: wire) }

  // MARK: Registers (section 2)

  public override func readRegister(bar: Int, offset: UInt64, byteCount: Int) -> UInt64 {
    guard isAllowed(offset, byteCount) else { return 0 }
    return UInt64(read(offset))
  }

  private func read(_ offset: UInt64) -> UInt32 {
    let mac = options.macAddress.map { UInt32($0) }
    switch offset {
    case RegisterTable.Offset.identity: return RegisterTable.identity
    case RegisterTable.Offset.version: return 1
    case RegisterTable.Offset.control: return isRunning ? RegisterTable.enable : 0
    case RegisterTable.Offset.status:
      return (linkIsUp ? RegisterTable.linkUp : 0)
        | (isRunning && failure == .none ? RegisterTable.running : 0)
        | (failure != .none ? RegisterTable.failed : 0)
    case RegisterTable.Offset.failure: return failure.rawValue
    case RegisterTable.Offset.addressLow: return mac[0] | mac[1] << 8 | mac[2] << 16 | mac[3] << 24
    case RegisterTable.Offset.addressHigh: return mac[4] | mac[5] << 8
    case RegisterTable.Offset.mtu: return options.mtu
    case RegisterTable.Offset.payloadBytes: return UInt32(options.payloadBytes)
    case RegisterTable.Offset.window: return UInt32(options.window)
    case RegisterTable.Offset.ringLimit: return RegisterTable.ringLimit
    case RegisterTable.Offset.events: return events
    case RegisterTable.Offset.arm: return armed
    case RegisterTable.Offset.rings:
      return words[Int(offset - RegisterTable.Offset.rings.lowerBound) / 4]
    case RegisterTable.Offset.counters:
      let counters = [receivedPDUs, lostPDUs, pdusWithoutBuffer, sentPDUs]
      let index = Int(offset - RegisterTable.Offset.counters.lowerBound) / 4
      return UInt32(truncatingIfNeeded: counters[index])
    default: return 0
    }
  }

  public override func writeRegister(bar: Int, offset: UInt64, byteCount: Int, value: UInt64) {
    guard isAllowed(offset, byteCount) else { return }
    let value = UInt32(truncatingIfNeeded: value)
    switch offset {
    case RegisterTable.Offset.control: writeControl(value)
    case RegisterTable.Offset.events: events &= ~value
    case RegisterTable.Offset.arm:
      checkReserved(value, RegisterTable.receiveArm | RegisterTable.transmitArm, "ARM")
      armed = value & (RegisterTable.receiveArm | RegisterTable.transmitArm)
    case RegisterTable.Offset.rings:
      if isRunning {
        violations.add("section 2", "a ring register was written while the device runs")
      } else {
        words[Int(offset - RegisterTable.Offset.rings.lowerBound) / 4] = value
      }
    case RegisterTable.Offset.receiveTail:
      writeTail(&receive, value, size: words[RegisterTable.RingWord.receiveSize])
    case RegisterTable.Offset.transmitTail:
      writeTail(&transmit, value, size: words[RegisterTable.RingWord.transmitSize])
    default:
      violations.add("section 2", "a write to the register at \(offset), which cannot be written")
    }
  }

  private func isAllowed(_ offset: UInt64, _ byteCount: Int) -> Bool {
    if byteCount == 4 && offset % 4 == 0 { return true }
    violations.add("section 1", "an access of \(byteCount) bytes at \(offset)")
    return false
  }

  private func checkReserved(_ value: UInt32, _ allowed: UInt32, _ name: String) {
    if value & ~allowed != 0 {
      violations.add("section 1", "reserved bits of \(name) were set: \(value)")
    }
  }

  private func writeControl(_ value: UInt32) {
    checkReserved(value, RegisterTable.enable | RegisterTable.reset, "CONTROL")
    if value & RegisterTable.reset != 0 {
      resetModel()
      return
    }
    let enable = value & RegisterTable.enable != 0
    if enable && !isRunning {
      checkRings()
      isRunning = true
    } else if !enable && isRunning {
      violations.add("section 7", "ENABLE was cleared without a reset")
    }
  }

  /// Sections 2 and 7: what holds when ENABLE is set.
  private func checkRings() {
    if !configuration.isBusMaster { violations.add("section 2", "ENABLE without bus mastering") }
    for word in stride(from: 0, to: RegisterTable.RingWord.receiveSize, by: 2) {
      let address = self.address(word)
      if address == 0 || address % 64 != 0 {
        violations.add("section 2", "a ring at address \(address)")
      }
    }
    for word in [RegisterTable.RingWord.receiveSize, RegisterTable.RingWord.transmitSize] {
      let size = words[word]
      if size < 32 || size > RegisterTable.ringLimit || size & (size - 1) != 0 {
        violations.add("section 2", "a ring of \(size) descriptors")
        fail(.ringIndex)
      }
    }
  }

  func address(_ word: Int) -> UInt64 { UInt64(words[word]) | UInt64(words[word + 1]) << 32 }

  private func writeTail(_ ring: inout RingProgress, _ value: UInt32, size: UInt32) {
    doorbells += 1
    guard isRunning else {
      violations.add("section 7", "a doorbell before ENABLE")
      return
    }
    // The tail moves forward, and no further than the ring has room.
    if value &- ring.head > size || value &- ring.tail > size {
      violations.add(
        "section 3", "a tail of \(value) after \(ring.tail), with \(ring.head) done of \(size)")
      fail(.ringIndex)
      return
    }
    ring.tail = value
  }

  // MARK: Interrupts, link, failure, reset

  /// Vector 1, once for each time that it was armed (section 6).
  func notify(_ bit: UInt32) {
    if armed & bit == 0 { return }
    armed &= ~bit
    interrupts.trigger(1)
  }

  private func changeStatus() {
    events |= RegisterTable.linkEvent
    interrupts.trigger(0)
  }

  /// The radio connection comes or goes. What travels on the link waits.
  public func setLink(up: Bool) {
    if up == linkIsUp { return }
    linkIsUp = up
    changeStatus()
  }

  /// The device gives up until it is reset (section 7).
  public func fail(_ reason: RadioLinkFailure) {
    if failure != .none { return }
    failure = reason
    changeStatus()
  }

  public override func resetModel() {
    isRunning = false
    failure = .none
    now = 0
    words = [UInt32](repeating: 0, count: RegisterTable.RingWord.count)
    receive = RingProgress()
    transmit = RingProgress()
    events = 0
    armed = 0
    outgoing = []
    farEnd = FarEnd()
    downlink = RadioBearer(options, direction: 0)
    downlink.recordsLosses = recordsLosses
    uplink = RadioBearer(options, direction: 1)
  }
}
