import ControlLoops
import Driver
import Memory
import VirtioNet

/// The VirtioNet driver on a device that is only memory.
struct RawDevice: ~Copyable {
  /// Half of it is the receive part, half the instance's.
  static let arenaBytes = 4 << 20
  static let partBytes = arenaBytes / 2
  private static let ringBytes = 2 << 20
  private static let ringsIOVA: UInt64 = 1 << 30

  let arena: Arena
  private let rings: Arena
  private let format: RingFormat
  private let function: RawFunction
  var driver: VirtioNet
  var receiveRing: raw_device
  var transmitRing: raw_device

  init(_ format: RingFormat) throws {
    let arena = try Arena.withBestPages(byteCount: Self.arenaBytes, name: "martlet-bench")
    let range = DMARange(address: arena.address, iova: 0, byteCount: Self.arenaBytes)
    try self.init(format, arena, range)
  }

  /// - Parameters:
  ///   - arena: the device receives into its first half.
  ///   - range: what the driver may name, the arena at its start.
  init(_ format: RingFormat, _ arena: consuming Arena, _ range: DMARange) throws {
    let rings = try Arena.withBestPages(byteCount: Self.ringBytes, name: "martlet-bench-rings")
    let function = RawFunction(format)
    let driver = try VirtioNet(
      DriverResources(
        function: function,
        rings: DMAZone(
          DMARange(address: rings.address, iova: Self.ringsIOVA, byteCount: Self.ringBytes)),
        arena: range))
    guard let transport = function.transport else {
      throw UnsupportedLoop(description: "\(VirtioNet.name) has not asked for its transport")
    }
    guard format == .split || transport.accepted.contains(.packedRing) else {
      throw UnsupportedLoop(description: "\(VirtioNet.name) does not use packed rings")
    }
    let receiveRing = try transport.device(ofQueue: 0, at: rings.address, iova: Self.ringsIOVA)
    let transmitRing = try transport.device(ofQueue: 1, at: rings.address, iova: Self.ringsIOVA)
    arena.writeReceiveHeaders(byteCount: Self.partBytes)
    self.format = format
    self.function = function
    self.arena = arena
    self.rings = rings
    self.driver = driver
    self.receiveRing = receiveRing
    self.transmitRing = transmitRing
  }

  mutating func takeQueuePair() -> VirtioNetQueuePair { driver.takeQueuePair(0) }

  /// The device fills up to `count` receive buffers with a frame of 64 bytes.
  @inline(__always)
  mutating func fill(_ count: Int) {
    switch format {
    case .split: _ = raw_device_use_split(&receiveRing, UInt32(count), 76)
    case .packed: _ = raw_device_use_packed(&receiveRing, UInt32(count), 76)
    }
  }

  /// The device sends up to `count` packets.
  @inline(__always)
  mutating func drain(_ count: Int) {
    switch format {
    case .split: _ = raw_device_use_split(&transmitRing, UInt32(count), 0)
    case .packed: _ = raw_device_use_packed(&transmitRing, UInt32(count), 0)
    }
  }
}

extension Arena {
  /// What a device writes before a packet, wherever a buffer may begin: one buffer, nothing asked for.
  func writeReceiveHeaders(byteCount: Int) {
    for start in stride(from: 0, to: byteCount, by: 2048) {
      for colour in 0..<8 {
        (address + start + colour * 64 + 64 - VirtioNet.receiveHeaderBytes).storeBytes(
          of: 1, toByteOffset: 10, as: UInt16.self)
      }
    }
  }
}
