import Driver
import Glibc
import Histogram
import Memory
import PCI
import VFIO
import VhostUser
import Virtio
import VirtioNet

/// The VirtioNet driver as a vhost-user front-end in a process of its own: `martlet bench-end driver`. Told by lines what
/// to do, and busy only then.
public enum DriverFront {
  /// - Parameters:
  ///   - socket: a back-end listens there.
  ///   - isPacked: packed rings; split ones otherwise.
  ///   - isMergeable: mergeable receive buffers.
  ///   - ringSize: descriptors of each ring.
  public static func run(socket: String, isPacked: Bool, isMergeable: Bool, ringSize: Int) throws {
    let rings = try Arena.withBestPages(byteCount: 4 << 20, name: "martlet-bench-rings")
    let packets = try Arena.withBestPages(
      byteCount: FrontLoop.arenaBytes, name: "martlet-bench-packets")
    let access = try VhostUserAccess(path: socket)
    try map(rings, at: ringsIOVA, access)
    try map(packets, at: packetsIOVA, access)
    var hidden: VirtioFeatures = []
    if !isPacked { hidden.insert(.packedRing) }
    if !isMergeable { hidden.insert(.mergeableBuffers) }
    let function = LimitedFunction(
      try VhostUserFunction(negotiated: access.descriptor, name: access.name), hiding: hidden)
    let zone = DMARange(address: rings.address, iova: ringsIOVA, byteCount: rings.byteCount)
    let arena = DMARange(address: packets.address, iova: packetsIOVA, byteCount: packets.byteCount)
    var driver = try VirtioNet(
      DriverResources(
        function: function, rings: DMAZone(zone), arena: arena, ringSize: ringSize))
    var front = FrontLoop(driver.takeQueuePair(0), packets: packets.address)
    try driver.start()
    try front.fillReceiveRing()
    say(
      function.accepted.contains(.packedRing) == isPacked
        ? "ready" : "unsupported: the driver has not taken packed rings")
    pinThread(toCore: 1)
    while let command = EndCommand.next() {
      switch command.word {
      case "burst": front.burstSize = min(64, command.size)
      case "size": front.packetBytes = command.size
      case "rx": say(try front.receive(command.milliseconds))
      case "tx": say(try front.transmit(command.milliseconds))
      case "io": say(try front.forward(command.milliseconds))
      case "ping": say(try front.ping(command.milliseconds))
      default: continue
      }
    }
    driver.stop()
    try access.quiesce()
  }

  private static let ringsIOVA: UInt64 = 0x1000_0000
  private static let packetsIOVA: UInt64 = 0x4000_0000

  private static func map(
    _ memory: borrowing Arena, at iova: UInt64, _ access: VhostUserAccess
  ) throws {
    try access.mapDMA(
      DMAMemory(
        address: memory.address, descriptor: memory.descriptor, offset: 0,
        byteCount: UInt64(memory.byteCount)), iova: iova, rights: [.read, .write])
  }

  private static func say(_ text: String) {
    print(text)
    fflush(nil)
  }

  private static func say(_ sample: Sample) {
    say("result " + (sample.values + [sample.cpuShare]).map { "\($0)" }.joined(separator: " "))
  }
}
