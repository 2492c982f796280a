import Driver
import EmulatedPCI
import FuzzHarness
import Memory
import PCI

/// What a hostile device does that is not the same for all: in its rings, and in its own state.
protocol Misbehaviour: AnyObject {
  /// - Parameters:
  ///   - verb: which of the device's own, from 0.
  ///   - number: a small number that comes with it.
  func act(_ verb: Int, _ number: Int, _ input: inout FuzzInput)
  /// The record of what the driver did wrong begins anew.
  func clearComplaints()
}

/// A driver that runs on a hostile device, and what it may never do: lose a buffer or a packet, hand one out twice, hand
/// out what lies outside it or metadata that do not fit, go on after an error, or not come back. Made once, and used for
/// all inputs: each finds a driver that has just been started.
final class DriverRig<D: NetworkDriver & ~Copyable> {
  let model: any NetworkModel
  let function: HostileFunction
  let wire: DeviceWire
  let memory: UnsafeMutableRawBufferPointer
  private let misbehaviour: any Misbehaviour
  private let lies = DeviceLies()
  private let arena: DMARange
  /// What only this driver can do that makes a broken receive ring good; gives back what the device held.
  private let ownVerb: (inout D.QueuePair, inout Burst) throws(DriverError) -> Void

  /// A driver that has been started.
  private final class Running {
    var driver: D
    var pair: D.QueuePair

    init(_ driver: consuming D, _ pair: consuming D.QueuePair) {
      self.driver = driver
      self.pair = pair
    }
  }
  private var running: Running?
  private var account = Account()
  /// Why the receive ring is of no use any more.
  private var broken: DriverError?
  private var burst = Burst(capacity: 64)
  private var received = Burst(capacity: 128)
  private var packets = Burst(capacity: 64)
  private var accessesBefore: UInt64 = 0
  /// How often the input has had the driver made anew.
  private var restarts = 0
  /// A start costs as much as all else that an input does.
  private static var restartLimit: Int { 3 }
  /// Seen of the drivers: some 600 for a start.
  private static var accessLimit: UInt64 { 20_000 }

  static var ringsByteCount: Int { 96 << 10 }
  static var ringSize: Int { 16 }
  static var macAddress: [UInt8] { [0x52, 0x54, 0x00, 0x12, 0x34, 0x56] }

  init(
    _ model: any NetworkModel, _ misbehaviour: any Misbehaviour, wire: DeviceWire,
    ownVerb: @escaping (inout D.QueuePair, inout Burst) throws(DriverError) -> Void
  ) {
    DeviceTime.install()
    self.model = model
    self.misbehaviour = misbehaviour
    self.wire = wire
    self.ownVerb = ownVerb
    function = HostileFunction(model)
    // Of its own each, so that whoever leaves one is seen.
    memory = .allocate(byteCount: Self.ringsByteCount, alignment: 4096)
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    let packets = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Account.arenaByteCount, alignment: 4096)
    packets.initializeMemory(as: UInt8.self, repeating: 0)
    arena = DMARange(
      address: packets.baseAddress!, iova: 0x2_4000_0000, byteCount: packets.count)
    do {
      try model.iommu.map(
        iova: 0x10_0000, byteCount: UInt64(memory.count), address: memory.baseAddress,
        rights: [.read, .write])
      try model.iommu.map(
        iova: arena.iova, byteCount: UInt64(arena.byteCount), address: arena.address,
        rights: [.read, .write])
    } catch {
      fatalError("\(error)")
    }
    account.prepare(arena)
    begin()
  }

  // MARK: One input

  /// - Parameter meddles: whether another thread changes the rings' memory meanwhile. Not in the targets whose inputs are
  ///   to be repeated to the digit: the fuzzer would take each other way of a race for something new.
  func run(_ input: inout FuzzInput, meddles: Bool = false) {
    let options = input.number(UInt8.self)
    restarts = 0
    lies.begin(input.part(Int(options & 15) * 3))
    function.hostility = lies
    function.stepsAfterWrites = options & 16 != 0
    let seed = meddles ? UInt64(input.number(UInt32.self)) | 1 : 0
    Meddler.shared.change(memory, seed: seed) {
      var steps = 0
      while !input.isEmpty && steps < 64 {
        steps += 1
        step(&input)
      }
    }
    end()
    begin()
  }

  private func step(_ input: inout FuzzInput) {
    let byte = input.number(UInt8.self)
    let number = Int(byte >> 5)
    accessesBefore = function.accessCount
    switch byte & 31 {
    case 0: post(2 * number + 1)
    case 1, 2: receive()
    case 3: transmit(1 + number & 3, pieces: 1 + number >> 1, input.number())
    case 4: complete()
    case 5:
      _ = running?.pair.armInterrupts(transmit: number & 1 != 0)
      running?.pair.disarmInterrupts()
    case 6: _ = try? running?.driver.handleConfigurationChange()
    case 7: command(number, &input)
    case 8:
      if number < 2 && restarts < Self.restartLimit {
        restarts += 1
        end()
        try? start(pairs: 1 + number)
      } else {
        _ = running?.driver.readDeviceStatistics()
      }
    case 9: tryOwnVerb()
    case 10, 11: function.step()
    case 12, 13: arrive(number, &input)
    case 14: model.setLink(up: number & 1 != 0)
    case 15: function.stepsAfterWrites.toggle()
    default: misbehaviour.act(Int(byte & 31) - 16, number, &input)
    }
    let accesses = function.accessCount - accessesBefore
    require(accesses < Self.accessLimit, "\(accesses) register accesses in one call")
  }

  private func arrive(_ number: Int, _ input: inout FuzzInput) {
    var arrival = DeviceWire.Arrival(
      byteCount: 14 + (number & 1 == 0 ? Int(input.number(UInt8.self)) : number * 1200),
      bytes: Self.macAddress)
    if number & 4 != 0 { arrival.header = (input.number(), input.number()) }
    wire.arrive(arrival)
  }

  private func command(_ number: Int, _ input: inout FuzzInput) {
    let address = MACAddress((2, 0, 0, 0, 0, UInt8(number)))
    switch number {
    case 0, 1: try? running?.driver.setPromiscuous(number == 0)
    case 2, 3, 4: try? running?.driver.setFilter(unicast: [address], multicast: [])
    default:
      try? running?.driver.setReceiveCoalescing(
        packets: 0, microseconds: UInt32(input.number(UInt8.self)))
    }
  }

  // MARK: The four verbs

  private func post(_ limit: Int) {
    guard let room = running?.pair.receiveRoom else { return }
    let count = account.lend(min(limit, room), &burst, headerBytes: D.receiveHeaderBytes)
    try? running?.pair.postReceive(&burst)
    require(burst.isEmpty, "postReceive left \(burst.count) of \(count)")
  }

  private func receive() {
    received.removeAll()
    do throws(DriverError) {
      try running?.pair.receive(into: &received)
      require(broken == nil, "\(broken!), and then nothing")
    } catch {
      require(broken == nil || received.isEmpty, "a queue that is broken hands out packets")
      broken = broken ?? error
      _ = error.description
    }
    account.take(received)
  }

  private func transmit(_ count: Int, pieces: Int, _ options: UInt8) {
    burst.removeAll()
    let first = account.fill(&burst, packets: count, pieces: pieces, options)
    if running == nil || burst.isEmpty { return }
    do throws(DriverError) {
      try running!.pair.transmit(&burst)
    } catch {
      _ = error.description
    }
    account.sent(first, count, left: burst)
    burst.removeAll()
  }

  private func complete() {
    packets.removeAll()
    do throws(DriverError) {
      try running?.pair.completeTransmit(into: &packets)
    } catch {
      _ = error.description
    }
    account.complete(packets)
  }

  private func tryOwnVerb() {
    if running == nil { return }
    burst.removeAll()
    do throws(DriverError) {
      try ownVerb(&running!.pair, &burst)
    } catch {
      _ = error.description
    }
    // Where it is not, the next look at it throws again.
    broken = nil
    account.takeBack(burst)
    burst.removeAll()
  }

  // MARK: From one input to the next

  /// The driver is stopped; what it held comes back, each thing once.
  private func end() {
    running?.driver.stop()
    while running != nil {
      burst.removeAll()
      packets.removeAll()
      running!.pair.takeBack(segments: &burst, packets: &packets)
      if burst.isEmpty && packets.isEmpty { break }
      account.takeBack(burst)
      account.complete(packets)
    }
    burst.removeAll()
    require(account.isWhole, account.description)
    running = nil
    broken = nil
  }

  /// Only the first pair is used.
  private func start(pairs: Int = 1) throws(DriverError) {
    var driver = try D(
      DriverResources(
        function: function,
        rings: DMAZone(
          DMARange(address: memory.baseAddress!, iova: 0x10_0000, byteCount: memory.count)),
        arena: arena, queuePairs: pairs, ringSize: Self.ringSize,
        interrupts: InterruptPlan(configuration: -1, queues: [Int32](repeating: -1, count: pairs)),
        requiresPlatformAccess: true))
    let pair = driver.takeQueuePair(0)
    do throws(DriverError) {
      try driver.start()
    } catch {
      driver.stop()
      throw error
    }
    running = Running(driver, pair)
  }

  /// The device is reset and honest again: the driver starts, and a packet goes each way.
  private func begin() {
    function.hostility = nil
    function.stepsAfterWrites = false
    model.reset()
    model.setLink(up: true)
    wire.clear()
    misbehaviour.clearComplaints()
    model.iommu.clearFaults()
    do throws(DriverError) {
      try start()
    } catch {
      fatalError("after a reset: \(error)")
    }
    var steps = 0
    while running!.driver.interface.linkIsUp == false && steps < 8 {
      steps += 1
      function.step()
      _ = try? running!.driver.handleConfigurationChange()
    }
    let frame = Account.frame
    post(3)
    wire.arrive(DeviceWire.Arrival(byteCount: frame.count, bytes: frame))
    for _ in 0..<2 { function.step() }
    received.removeAll()
    try? running!.pair.receive(into: &received)
    require(received.count == 1, "after a reset \(received.count) pieces came of one packet")
    require(account.bytes(of: received[0], in: arena) == frame, "after a reset a packet came wrong")
    account.take(received)
    wire.keepsSent = true
    account.write(frame, to: arena)
    burst.removeAll()
    let tag = account.fill(&burst, packets: 1, pieces: 1, 0)
    try? running!.pair.transmit(&burst)
    account.sent(tag, 1, left: burst)
    for _ in 0..<2 { function.step() }
    complete()
    wire.keepsSent = false
    require(wire.sentCount == 1, "after a reset \(wire.sentCount) packets left of one")
    require(wire.lastSent == frame, "after a reset a packet left wrong")
    require(account.nothingIsSent, "after a reset a packet is not completed")
    require(model.complaintCount == 0, "after a reset: \(model.complaints)")
    require(model.iommu.faultCount == 0, "after a reset: \(model.iommu.faults)")
  }
}
