import CLinux
import Glibc
import Memory

/// What a queue thread captures, and into which rings. Allocates nothing once it is made. One thread.
@usableFromInline
struct CaptureTapState: ~Copyable {
  // Invariant: `generationWord` points at a word that stays mapped; `slots` at as many initialised slots as an area has, or
  // is nil where there is no area: then nothing is ever active.
  @usableFromInline let generationWord: UnsafeRawPointer
  @usableFromInline var generation: UInt64 = 0
  /// A bit for each slot that captures, and of those that capture what instances get or send.
  @usableFromInline var active: UInt32 = 0
  @usableFromInline var ofInstances: UInt32 = 0
  private let slots: UnsafeMutablePointer<CaptureTapSlot>?
  private let orders: UnsafeRawPointer?
  // Invariant: `byteCount` bytes from `packets` on may be read where a descriptor that has been checked names them.
  private let packets: UnsafeRawPointer
  private let byteCount: UInt64
  /// Packets that have been numbered.
  private(set) var numbered: UInt32 = 0

  /// Without an area.
  init() {
    let word = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
    word.initialize(to: 0)
    generationWord = UnsafeRawPointer(word)
    slots = nil
    orders = nil
    packets = generationWord
    byteCount = 0
  }

  init(
    area: borrowing CaptureArea, readers: borrowing CaptureReaders, queue: Int,
    packets: UnsafeRawPointer, byteCount: Int
  ) {
    generationWord = UnsafeRawPointer(area.address)
    orders = UnsafeRawPointer(area.order(0))
    let slots = UnsafeMutablePointer<CaptureTapSlot>.allocate(capacity: CaptureArea.slots)
    for slot in 0..<CaptureArea.slots {
      (slots + slot).initialize(
        to: CaptureTapSlot(
          program: UnsafeRawPointer(area.program(slot)),
          ring: CaptureRingWriter(
            page: area.ring(slot, queue), reader: UnsafeRawPointer(readers.word(slot, queue)))))
    }
    self.slots = slots
    self.packets = packets
    self.byteCount = UInt64(byteCount)
  }

  /// Takes the orders of now. One that is being written is taken in a later turn.
  mutating func takeUpdate() {
    let now = acquire_load64(generationWord)
    guard now & 1 == 0, let slots, let orders else { return }
    for slot in 0..<CaptureArea.slots {
      let order = (orders + slot &* 64).loadUnaligned(as: CaptureOrder.self)
      acquire_fence()
      // What has been read may be of two orders: nothing is done by it.
      if relaxed_load64(generationWord) != now { return }
      let bit: UInt32 = 1 &<< UInt32(slot)
      let isOn = slots[slot].take(order)
      let isOfInstances = isOn && (order.wants(.channelReceive) || order.wants(.channelTransmit))
      active = isOn ? active | bit : active & ~bit
      ofInstances = isOfInstances ? ofInstances | bit : ofInstances & ~bit
    }
    generation = now
  }

  /// Another burst: its packets come after those before, at another time.
  mutating func beginBurst() {
    for slot in 0..<CaptureArea.slots { slots?[slot].time = 0 }
    numbered &+= 256
  }

  /// Captures the packets in some slots of a burst.
  /// - Parameters:
  ///   - first: the first slot's place in its burst.
  ///   - base: what positions count from, in bytes behind `packets`.
  mutating func capture(
    _ point: CapturePoint, _ descriptors: UnsafePointer<Descriptor>, _ count: Int, first: Int,
    instance: UInt32, base: Int, rule: CapturedRule
  ) {
    guard let slots else { return }
    var set = active
    while set != 0 {
      let slot = set.trailingZeroBitCount
      set &= set &- 1
      if !slots[slot].wants(point, instance) { continue }
      slots[slot].capture(
        point, descriptors, count, number: numbered &+ UInt32(truncatingIfNeeded: first),
        instance: instance, packets + base, byteCount &- UInt64(base), rule)
    }
  }
}

/// One capture on one queue.
struct CaptureTapSlot: ~Copyable {
  private var order = CaptureOrder()
  private let program: UnsafeRawPointer
  private var machine = FilterMachine()
  private var ring: CaptureRingWriter
  /// Of this burst, in nanoseconds; 0 where it has not been looked at.
  var time: UInt64 = 0
  // Invariant: room for `gatheredBytes` bytes.
  private let gathered: UnsafeMutableRawPointer

  /// The longest packet that is looked at as a whole: the most pieces, and each of any size that a NIC gives one.
  private static let gatheredBytes = 256 << 10

  init(program: UnsafeRawPointer, ring: consuming CaptureRingWriter) {
    self.program = program
    self.ring = ring
    gathered = .allocate(byteCount: Self.gatheredBytes, alignment: 64)
  }

  deinit { gathered.deallocate() }

  /// - Returns: whether there is anything to capture.
  mutating func take(_ new: CaptureOrder) -> Bool {
    if new.session == order.session {
      order = new
      return new.session != 0
    }
    order = CaptureOrder()
    let size = Int(new.ringSize)
    guard new.session != 0, size >= 4096, size & (size - 1) == 0,
      size <= CaptureArea.maximumRingBytes,
      machine.load(from: program, count: Int(new.instructions)) == nil
    else { return false }
    ring.begin(session: new.session, size: size)
    order = new
    return true
  }

  func wants(_ point: CapturePoint, _ instance: UInt32) -> Bool {
    guard order.wants(point) else { return false }
    let bit = UInt64(1) &<< UInt64(instance & 63)
    return switch point {
    case .wireReceive, .wireTransmit, .stageReceive, .stageTransmit: true
    case .channelReceive: order.receivers & bit != 0
    case .channelTransmit: order.senders & bit != 0
    }
  }

  mutating func capture(
    _ point: CapturePoint, _ slots: UnsafePointer<Descriptor>, _ count: Int, number: UInt32,
    instance: UInt32, _ packets: UnsafeRawPointer, _ byteCount: UInt64, _ rule: CapturedRule
  ) {
    var seen = 0
    var matched = 0
    var dropped = 0
    var first = 0
    while first < count {
      let next = machine.tests.firstNotRefused(slots, first, count, packets, byteCount)
      seen &+= next &- first
      first = next
      if first == count { break }
      var pieces = first
      if slots[first].flags.contains(.offload) { pieces &+= 1 }
      if pieces == count { break }
      var last = pieces
      var bytes = UInt64(slots[pieces].length)
      var isReadable = slots[pieces].position &+ UInt64(slots[pieces].length) <= byteCount
      while slots[last].flags.contains(.more) && last &+ 1 < count
        && !slots[last].flags.contains(.aggregate)
      {
        last &+= 1
        bytes &+= UInt64(slots[last].length)
        isReadable =
          isReadable && slots[last].position &+ UInt64(slots[last].length) <= byteCount
      }
      seen &+= 1
      if isReadable {
        let packet = CapturedPacket(
          slots: slots + first, pieces: slots + pieces, count: last &- pieces &+ 1,
          byteCount: UInt32(truncatingIfNeeded: min(bytes, UInt64(UInt32.max))), packets: packets)
        let length = Self.filter(&machine, gathered, packet)
        if length != 0 {
          matched &+= 1
          let isKept = keep(
            packet, length: length, point, instance,
            number: number &+ UInt32(truncatingIfNeeded: first), rule)
          if !isKept { dropped &+= 1 }
        }
      }
      first = last &+ 1
    }
    ring.count(
      CapturePoint.counterIndex(point, instance: Int(instance & 63)), seen: seen,
      matched: matched, dropped: dropped)
    if matched != dropped { ring.publish() }
  }

  /// How many bytes of a packet the filter takes.
  @inline(never)
  private static func filter(
    _ machine: inout FilterMachine, _ gathered: UnsafeMutableRawPointer,
    _ packet: CapturedPacket
  ) -> UInt32 {
    let first = packet.pieces.pointee
    let result = FilterMachine.run(
      machine.operations, machine.memory, frame: packet.packets + Int(first.position),
      present: first.length, byteCount: packet.byteCount)
    if result != FilterMachine.needsMore { return UInt32(truncatingIfNeeded: result) }
    // It looks at bytes of another piece: they are put together.
    let whole = min(Int(packet.byteCount), gatheredBytes)
    packet.copy(to: gathered, byteCount: whole)
    let again = FilterMachine.run(
      machine.operations, machine.memory, frame: UnsafeRawPointer(gathered), present: UInt32(whole),
      byteCount: packet.byteCount)
    return again == FilterMachine.needsMore ? 0 : UInt32(truncatingIfNeeded: again)
  }

  /// - Returns: whether there was room.
  private mutating func keep(
    _ packet: CapturedPacket, length: UInt32, _ point: CapturePoint, _ instance: UInt32,
    number: UInt32, _ rule: CapturedRule
  ) -> Bool {
    let captured = min(packet.byteCount, length, order.snapLength)
    let byteCount = (CaptureRecord.byteCount &+ Int(captured) &+ 7) & ~7
    guard let place = ring.room(for: byteCount) else { return false }
    if time == 0 || order.isPrecise != 0 { time = clock_nanoseconds(CLOCK_REALTIME) }
    var record = CaptureRecord()
    record.recordBytes = UInt32(truncatingIfNeeded: byteCount)
    record.capturedBytes = captured
    record.packetBytes = packet.byteCount
    record.time = time
    record.instance = instance
    record.number = number
    record.rule = packet.rule(rule)
    record.point = point.rawValue
    if let offload = packet.offload {
      if offload.needsChecksum {
        record.checksumStart = offload.checksumStart
        record.checksumOffset = offload.checksumOffset
      }
      if offload.segmentation != .none { record.segmentBytes = offload.segmentSize }
    }
    place.storeBytes(of: record, as: CaptureRecord.self)
    packet.copy(to: place + CaptureRecord.byteCount, byteCount: Int(captured))
    ring.append(byteCount)
    return true
  }
}

/// A packet in some slots.
struct CapturedPacket: BitwiseCopyable {
  /// Its metadata, where it has any; else its first piece.
  let slots: UnsafePointer<Descriptor>
  // Invariant: `count` pieces, each of which lies behind `packets` where it may be read.
  let pieces: UnsafePointer<Descriptor>
  let count: Int
  let byteCount: UInt32
  let packets: UnsafeRawPointer

  var offload: Offload? { slots == pieces ? nil : Offload(slots.pointee) }

  /// The number of the rule that matches it.
  func rule(_ rule: CapturedRule) -> UInt32 {
    switch rule {
    case .known(let number): number
    case .found(let finder):
      finder.rule(of: packets + Int(pieces.pointee.position), byteCount: Int(pieces.pointee.length))
    }
  }

  /// The first bytes, of which there must be as many.
  func copy(to target: UnsafeMutableRawPointer, byteCount: Int) {
    var done = 0
    var piece = 0
    while done < byteCount && piece < count {
      let length = min(Int(pieces[piece].length), byteCount &- done)
      (target + done).copyMemory(
        from: packets + Int(pieces[piece].position), byteCount: length)
      done &+= length
      piece &+= 1
    }
  }
}
