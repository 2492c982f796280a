import CLinux
import Channel
import Driver
import EmulatedPCI
import Glibc
import Memory
import PCI
import Steering
import Testing
import VirtioNet
import VirtioNetDevice
import Wire

@testable import Host

/// Frames of UDP between a far end and instances whose addresses are 10.0.0.1 and on.
enum SharedFrames {
  static let station: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]
  static let peer: [UInt8] = [2, 0, 0, 0, 0, 1]

  /// - Parameter number: is repeated in the payload, so that whose packet it is shows.
  static func udp(
    from source: [UInt8], to destination: [UInt8], number: Int, payload: Int = 60,
    isOutgoing: Bool = false
  ) -> [UInt8] {
    let bytes = (0..<payload).map { UInt8(truncatingIfNeeded: $0 % 2 == 0 ? number : number >> 8) }
    let length = 28 + payload
    return (isOutgoing ? peer + station : station + peer) + [8, 0]
      + [0x45, 0, UInt8(length >> 8), UInt8(length & 255), 0, 0, 0, 0, 64, 17, 0, 0] + source
      + destination
      + [0, 7, 0, 9, UInt8((length - 20) >> 8), UInt8((length - 20) & 255), 0, 0] + bytes
  }

  static func address(_ index: Int) -> [UInt8] { [10, 0, 0, UInt8(index + 1)] }
  static let far: [UInt8] = [10, 0, 0, 254]

  static func number(_ frame: [UInt8]) -> Int { Int(frame[42]) | Int(frame[43]) << 8 }
}

/// A host of many instances: device, driver, path, control and instances in one process and one thread, moved step by step.
final class SharedBench {
  static let hostReceiveBytes = 1 << 20
  static let hostArenaBytes = 2 << 20
  static let slotBytes = 4 << 20
  static let receiveBytes = 256 << 10
  static let arenaBytes = 2 << 20
  static let windowIOVA: UInt64 = 1 << 32

  let wire = MemoryWire()
  let device: VirtioNetDevice
  let function: ExclusiveFunction
  var driver: VirtioNet
  let control: InstanceControl
  let statistics: HostStatistics
  let windowAddress: UnsafeMutableRawPointer
  let socket: Int32
  private let paths: PathArray<SharedPath<VirtioNetQueuePair>>
  private let rings: UnsafeMutableRawPointer
  private let hostSocket: Int32
  private let changed = eventfd(0, Int32(EFD_NONBLOCK))
  let wakes: WakeSet
  private let interrupts = (0..<2).map { _ in eventfd(0, Int32(EFD_NONBLOCK)) }
  /// The queue thread, where there is one.
  private var loop: (thread: QueueThread, run: HostRun)?
  /// What the host has said, the oldest first.
  var news: [String] = []

  /// - Parameter carriesOffloads: the device cuts packets into segments.
  init(
    offers: VirtioNetDevice.Options = .init(), slots: Int = 64, carriesOffloads: Bool = false
  ) throws {
    wire.carriesOffloads = carriesOffloads
    device = VirtioNetDevice(wire: wire, options: offers)
    function = ExclusiveFunction(device)
    rings = .allocate(byteCount: 1 << 20, alignment: 4096)
    let windowBytes = Self.hostArenaBytes + slots * Self.slotBytes
    let window = try MemoryWindow(byteCount: windowBytes)
    windowAddress = window.address
    let arena = try Arena(byteCount: Self.hostArenaBytes, pageSize: .ordinary, name: "test")
    try window.map(arena.descriptor, at: 0, byteCount: Self.hostArenaBytes)
    try device.iommu.map(
      iova: 1 << 20, byteCount: 1 << 20, address: rings, rights: [.read, .write])
    let receive = UInt64(Self.hostReceiveBytes)
    try device.iommu.map(
      iova: Self.windowIOVA, byteCount: receive, address: window.address, rights: [.read, .write])
    try device.iommu.map(
      iova: Self.windowIOVA + receive, byteCount: UInt64(Self.hostArenaBytes) - receive,
      address: window.address + Self.hostReceiveBytes, rights: .read)
    driver = try VirtioNet(
      DriverResources(
        function: function,
        rings: DMAZone(DMARange(address: rings, iova: 1 << 20, byteCount: 1 << 20)),
        arena: DMARange(
          address: window.address, iova: Self.windowIOVA, byteCount: windowBytes),
        interrupts: InterruptPlan(configuration: interrupts[0], queues: [interrupts[1]])))
    var sockets: [Int32] = [-1, -1]
    socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &sockets)
    (socket, hostSocket) = (sockets[0], sockets[1])
    statistics = HostStatistics(
      page: try CounterPage(capacity: HostStatistics.capacity(queues: 1, isShared: true)),
      queues: 1, device: [], isShared: true)
    wakes = try WakeSet(interrupt: interrupts[1])
    control = InstanceControl(
      plan: SharedPlan(VirtioNet.self, driver.interface, hostArenaBytes: Self.hostArenaBytes),
      window: window, wakes: [wakes], changed: changed, statistics: statistics,
      supervisor: SupervisorSocket(descriptor: hostSocket))
    paths = control.makePaths(&driver, receiveBytes: Self.hostReceiveBytes)
    try driver.start()
  }

  deinit {
    driver.stop()
    rings.deallocate()
    for descriptor in [socket, hostSocket, changed] + interrupts { close(descriptor) }
  }

  /// One turn of the host, the control thread's part included, and of the device.
  func turn() throws {
    if loop == nil { _ = try turnPath() }
    _ = function.step()
    control.service()
    hear()
  }

  func turnPath() throws -> Bool {
    if paths[0].hasUpdate { paths[0].takeUpdate() }
    return try paths[0].turn()
  }
  func prepareToSleep() -> Bool { paths[0].prepareToSleep() }
  func wake() { paths[0].wake(by: 0) }
  var sleepLimit: Int32 { paths[0].sleepLimit }

  /// From now on the path has a thread of its own; ``turn()`` is what the others do.
  func startThread(_ mode: PollMode) throws {
    let run = HostRun(failed: changed, wakes: [wakes])
    let work = QueueLoop(
      path: paths.elements, queue: 0, mode: mode,
      descriptors: QueueDescriptors(wakes: wakes, alsoInterrupted: [], recording: nil),
      statistics: statistics, run: run)
    let thread = try QueueThread(queue: 0, core: nil)
    thread.start {
      var own = work
      own.turn()
    }
    loop = (thread, run)
  }

  func stopThread() {
    loop?.run.stop()
    loop?.thread.join()
    loop = nil
  }

  func turns(_ count: Int) throws { for _ in 0..<count { try turn() } }

  func hear() {
    while case .message(let message, let descriptors) = ControlMessage.receive(from: socket) {
      news.append("\(message.word) \(message.rest)")
      for descriptor in descriptors { close(descriptor) }
    }
  }

  /// Tells the host something as the supervisor would. The descriptors are the host's from now on.
  func tell(_ text: String, _ descriptors: [Int32] = []) {
    control.take(ControlMessage(text), descriptors.map { dup($0) })
    control.service()
  }

  /// Turns until the host says something that begins so, at most 200 times.
  func waits(for text: String) throws -> Bool {
    for _ in 0..<(loop == nil ? 200 : 200_000) {
      if let place = news.firstIndex(where: { $0.hasPrefix(text) }) {
        news.remove(at: place)
        return true
      }
      try turn()
    }
    return false
  }

  var counters: [String: UInt64] {
    statistics.publish(paths[0].report, queue: 0)
    paths[0].publish(to: statistics)
    return Dictionary(uniqueKeysWithValues: statistics.counters.map { ($0.name, $0.value) })
  }

  /// Whether no packet is with the device and no segment is lost.
  func isConserved(_ peers: [SharedPeer]) -> Bool {
    let counters = counters
    let host = (counters["rx_q0_segments_host"] ?? 0) + (counters["rx_q0_segments_device"] ?? 0)
    if host != UInt64(Self.hostReceiveBytes / 2048) { return false }
    return peers.allSatisfy { peer in
      let own = ["host", "instance", "sending"].reduce(UInt64(0)) {
        $0 + (counters["rx_i\(peer.index)_segments_\($1)"] ?? 0)
      }
      return own == UInt64(Self.receiveBytes / 2048)
    }
  }

  var inFlight: Int { paths[0].instances.inFlight }

  /// Attaches an instance with the address 10.0.0.(index + 1), mapped for the device.
  func attach(
    _ index: Int, generation: Int = 1, claims: [String]? = nil, weight: Int = 1, time: Int = 100,
    slots: Int = 256, registered: Int = 0, name: String = "one"
  ) throws -> SharedPeer {
    let peer = try SharedPeer(index, generation, slots: slots)
    let base = UInt64(Self.hostArenaBytes + index * Self.slotBytes)
    tell(
      "attach id=\(peer.id) name=\(name) slot=\(base) receive=\(Self.receiveBytes) bytes=\(Self.arenaBytes) slots=\(slots) weight=\(weight) time=\(time) segments=0 register-at=\(Self.arenaBytes) register-bytes=\(registered)",
      [
        peer.arena.descriptor, peer.memory.descriptor, peer.record.descriptor, peer.hostEnd,
        peer.ring,
      ])
    #expect(try waits(for: "attached id=\(peer.id)"))
    try device.iommu.map(
      iova: Self.windowIOVA + base, byteCount: UInt64(Self.arenaBytes),
      address: windowAddress + Int(base), rights: .read)
    for claim in claims ?? ["ipv4:10.0.0.\(index + 1)"] {
      tell("claim id=\(peer.id) claim=\(claim)")
      #expect(try waits(for: "claimed id=\(peer.id)"))
    }
    return peer
  }

  /// Detaches it, and takes its memory from the device.
  func detach(_ peer: SharedPeer) throws -> Bool {
    tell("detach id=\(peer.id)")
    guard try waits(for: "detached id=\(peer.id)") else { return false }
    let base = UInt64(Self.hostArenaBytes + peer.index * Self.slotBytes)
    return device.iommu.unmap(
      iova: Self.windowIOVA + base, byteCount: UInt64(Self.arenaBytes)) != nil
  }
}

/// A stack instance that a test plays.
final class SharedPeer {
  let index: Int
  let id: Int
  let arena: Arena
  let memory: ChannelMemory
  /// Of which it knows nothing.
  let record: Arena
  /// What wakes it: the host's end and its own.
  let hostEnd: Int32
  let doorbell: Int32
  /// What it rings.
  let ring = eventfd(0, Int32(EFD_NONBLOCK))
  var end: InstanceEnd
  var burst = Burst(capacity: 256)
  /// Frames that have come, and tags that have come back.
  var received: [[UInt8]] = []
  var completed: [Int] = []

  init(_ index: Int, _ generation: Int, slots: Int) throws {
    self.index = index
    id = index | generation << 8
    arena = try Arena(byteCount: SharedBench.arenaBytes, pageSize: .ordinary, name: "test")
    memory = try ChannelMemory(layout: try #require(ChannelLayout(queues: 1, slots: slots)))
    record = try Arena(
      byteCount: HostRecord.instanceBytes(queues: 1, receiveBytes: SharedBench.receiveBytes),
      pageSize: .ordinary, name: "test")
    (hostEnd, doorbell) = try CommandDoorbell.pair()
    end = InstanceEnd(memory, queue: 0, hostDoorbell: ring)
  }

  deinit { for descriptor in [hostEnd, doorbell, ring] { close(descriptor) } }

  static let firstUnit = SharedBench.receiveBytes / 1024

  /// Puts a frame into a segment of its transmit part and sends it.
  func send(_ frame: [UInt8], segment: Int = 0, tag: Int = 0, offload: Offload? = nil) {
    let unit = Self.firstUnit + 2 * segment
    (arena.address + unit * 1024).copyMemory(from: frame, byteCount: frame.count)
    if let offload {
      var metadata = offload
      metadata.tag = UInt16(tag)
      burst.append(metadata.slot)
    }
    burst.append(
      Descriptor(segment: UInt32(unit), length: UInt32(frame.count), tag: UInt16(tag)))
    push()
  }

  /// Puts slots on its transmit ring as they are.
  func send(_ slots: [Descriptor]) {
    for slot in slots { burst.append(slot) }
    push()
  }

  private func push() {
    end.transmit.push(&burst)
    end.doorbell.ring()
    burst.removeAll()
  }

  /// Takes all that has come, and gives it back.
  func take(givesBack: Bool = true) throws {
    try end.receive.pop(into: &burst)
    var frame: [UInt8] = []
    for position in 0..<burst.count {
      let slot = burst[position]
      if slot.flags.contains(.offload) { continue }
      frame += UnsafeRawBufferPointer(
        start: arena.address + Int(slot.position), count: Int(slot.length))
      if slot.flags.contains(.more) { continue }
      received.append(frame)
      frame = []
    }
    if givesBack && !burst.isEmpty {
      end.free.push(&burst)
      end.doorbell.ring()
    }
    burst.removeAll()
    try end.completion.pop(into: &burst)
    for position in 0..<burst.count { completed.append(Int(burst[position].tag)) }
    burst.removeAll()
  }
}

extension SharedBench {
  /// The host's path alone: the device does nothing.
  func stepPath() { _ = try? turnPath() }

  /// Whether the queue thread could sleep now.
  func maySleep() -> Bool {
    var isQuiet = false
    // The first time it looks at all that has been left.
    for _ in 0..<200 where !isQuiet {
      stepPath()
      isQuiet = prepareToSleep()
      wake()
    }
    return isQuiet
  }
}
