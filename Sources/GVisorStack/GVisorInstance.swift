import CGVisor
import CLinux
import Channel
import Glibc
import Memory
import Stacks
import Steering

/// gVisor's TCP/IP on a channel. It keeps packets in memory of its own, which a garbage collector moves about in: each
/// packet is copied once on its way in and once on its way out, and counted.
///
/// It sends from threads of its own: what they have for the device waits in a queue that ``service()`` empties. One
/// instance a process.
public struct GVisorInstance: StackInstance, ~Copyable {
  private let channel: InstanceChannel
  private let environment: InstanceEnvironment
  private let receivePart: ReceivePart
  // Invariant: mapped as long as `environment`.
  private let arena: UnsafeMutableRawPointer
  private let library: GVisorLibrary
  private var pool: SegmentPool
  private var inFlight = PacketTags<UInt32>(count: 1 << 13)
  private var sending = Burst(capacity: Self.batch)
  /// Segments for the next packets, one for each room.
  private var rooms = Burst(capacity: Self.batch)
  // Invariant: both have `batch` elements, until deinit.
  private let received: UnsafeMutablePointer<gvisor_piece>
  private let waiting: UnsafeMutablePointer<gvisor_piece>
  // Invariant: written by gVisor's threads as well, never freed.
  private let shared: UnsafeMutablePointer<gvisor_shared>
  private let event: Int32
  /// Bytes of the largest frame.
  private let frameBytes: Int
  private var mayHaveMore = false
  private var counts = InterfaceCounts()

  /// Packets and pieces at a time: those of a burst from the channel.
  private static let batch = 256

  public init(
    _ environment: InstanceEnvironment, _ arguments: InstanceArguments, channel: InstanceChannel
  ) throws(StackError) {
    guard arguments.client == nil else {
      throw StackError("gvisor is a server here; lwip can fetch")
    }
    let own = NetworkAddress(ipv4: arguments.address)
    guard environment.maySend(from: own) else {
      throw StackError("\(own) is not claimed by this instance")
    }
    let library = try GVisorLibrary()
    let event = eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC))
    guard event >= 0 else { throw StackError("no eventfd: \(String(cString: strerror(errno)))") }
    let shared = UnsafeMutablePointer<gvisor_shared>.allocate(capacity: 1)
    shared.initialize(to: gvisor_shared())
    let mac = environment.macAddress
    try library.start(
      gvisor_configuration(
        mac: (mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]), port: arguments.httpPort,
        mtu: UInt32(environment.mtu), address: arguments.address,
        prefix_length: UInt32(arguments.prefixLength), gateway: arguments.gateway, event: event),
      shared: shared)
    self.init(environment, channel, library, shared, event)
  }

  private init(
    _ environment: InstanceEnvironment, _ channel: InstanceChannel, _ library: GVisorLibrary,
    _ shared: UnsafeMutablePointer<gvisor_shared>, _ event: Int32
  ) {
    self.environment = environment
    self.channel = channel
    self.library = library
    self.shared = shared
    self.event = event
    receivePart = environment.receivePart
    arena = environment.arena.address
    frameBytes = environment.mtu + 14
    var shares = [Int](repeating: 0, count: SegmentPool.classCount)
    shares[SegmentPool.sizeClass(for: frameBytes)!] = 1
    pool = SegmentPool(
      arena: environment.arena.address,
      range: environment.receiveBytes..<environment.arena.byteCount, shares: shares)
    received = .allocate(capacity: Self.batch)
    received.initialize(repeating: gvisor_piece(), count: Self.batch)
    waiting = .allocate(capacity: Self.batch)
    waiting.initialize(repeating: gvisor_piece(), count: Self.batch)
    InterfaceCounts.name(environment.counters)
    counts.copiesPerByte = 1
    counts.publish(environment.counters, 0)
  }

  deinit {
    received.deallocate()
    waiting.deallocate()
  }

  // MARK: Receive

  public mutating func receive(_ burst: inout Burst, queue: Int) {
    var pieces = 0
    var first = 0
    while first < burst.count {
      let last = burst.endOfPacket(from: first) ?? burst.count - 1
      pieces += append(burst, first...last, at: pieces)
      first = last + 1
    }
    if pieces > 0 { library.receive(received, count: pieces) }
    for index in 0..<burst.count where !burst[index].flags.contains(.offload) {
      channel.giveBack(burst[index].segment, queue: queue)
    }
    counts.publish(environment.counters, pool.totalReferences)
  }

  /// One packet's pieces where they lie.
  /// - Returns: how many, 0 for a packet that does not lie in the receive part.
  private mutating func append(
    _ burst: borrowing Burst, _ slots: ClosedRange<Int>, at start: Int
  ) -> Int {
    var count = 0
    var bytes: UInt64 = 0
    var isChecked = false
    for index in slots {
      let slot = burst[index]
      if slot.flags.contains(.offload) {
        // A partial checksum comes from this machine: there is no wire that could have harmed the packet.
        if Offload(slot)?.needsChecksum == true { isChecked = true }
        continue
      }
      if slot.flags.contains(.checksumValid) { isChecked = true }
      guard let place = receivePart.bytes(of: slot) else {
        counts.receivedPackets += 1
        counts.receiveDropped += 1
        return 0
      }
      received[start + count] = gvisor_piece(
        address: place.baseAddress, length: slot.length, flags: UInt32(GVISOR_MORE))
      bytes += UInt64(slot.length)
      count += 1
    }
    if count == 0 { return 0 }
    received[start + count - 1].flags = isChecked ? UInt32(GVISOR_CHECKED) : 0
    counts.receivedPackets += 1
    counts.receivedBytes += bytes
    counts.receivedCopiedBytes += bytes
    return count
  }

  // MARK: Transmit

  public mutating func completed(_ burst: inout Burst) {
    for index in 0..<burst.count {
      guard let segment = inFlight.finish(burst[index].tag) else {
        counts.strayCompletions += 1
        continue
      }
      pool.release(segment)
    }
    counts.publish(environment.counters, pool.totalReferences)
  }

  public mutating func service() -> Bool {
    var worked = false
    if acquire_load32(shared) != 0 {
      relaxed_store32(shared, 0)
      // What is put into the queue from here on sets the word again.
      full_fence()
      mayHaveMore = true
    }
    if mayHaveMore { worked = send() }
    let before = sending.count
    channel.ends[0].transmit.push(&sending)
    if sending.count != before { worked = true }
    if worked { counts.publish(environment.counters, pool.totalReferences) }
    return worked
  }

  /// One batch out of gVisor's queue, each packet into a segment of its own.
  private mutating func send() -> Bool {
    let limit = min(sending.room, inFlight.available, Self.batch)
    pool.allocate(byteCount: frameBytes, upTo: limit, into: &rooms)
    let count = rooms.count
    if count == 0 {
      counts.ringFull += 1
      return false
    }
    for index in 0..<count {
      waiting[index] = gvisor_piece(
        address: arena + Int(rooms[index].position),
        length: UInt32(frameBytes), flags: 0)
    }
    let sent = library.send(into: waiting, count: count)
    mayHaveMore = sent == count
    for index in 0..<sent {
      let segment = rooms[index].segment
      let length = waiting[index].length
      guard length > 0, let tag = inFlight.next else {
        pool.release(segment)
        continue
      }
      inFlight.take(for: segment)
      sending.append(Descriptor(segment: segment, length: length, tag: tag))
      counts.sentPackets += 1
      counts.sentBytes += UInt64(length)
      counts.sentCopiedBytes += UInt64(length)
    }
    rooms.removeFirst(sent)
    pool.release(&rooms)
    return sent > 0
  }

  // MARK: Sleep

  /// gVisor's threads ring for what they have while the loop sleeps.
  public mutating func prepareToSleep() -> Bool {
    var value: UInt64 = 0
    _ = read(event, &value, 8)
    relaxed_store32(UnsafeMutableRawPointer(shared) + 4, 1)
    full_fence()
    return acquire_load32(shared) == 0 && !mayHaveMore
  }

  public var nextDeadline: Int32 { sending.isEmpty ? 1000 : 1 }
  public var descriptor: Int32 { event }
}
