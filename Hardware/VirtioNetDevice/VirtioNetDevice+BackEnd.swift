import EmulatedPCI
import Virtio

/// The device without its PCI function: what a vhost-user back-end is told by messages, in place of registers.
extension VirtioNetDevice {
  /// A ring as a front-end describes it, in the device's address space.
  public struct RingSetup: Sendable, Equatable {
    /// Descriptors.
    public var size: Int
    /// Where in the ring the device goes on, as SET_VRING_BASE has it.
    public var base: UInt32
    public var descriptors: UInt64
    public var available: UInt64
    public var used: UInt64

    public init(size: Int, base: UInt32, descriptors: UInt64, available: UInt64, used: UInt64) {
      self.size = size
      self.base = base
      self.descriptors = descriptors
      self.available = available
      self.used = used
    }
  }

  /// The largest ring that the device can have.
  public static var maximumRingSize: Int { DeviceQueue.maximumSize }
  public var queuePairCount: Int { options.queuePairs }

  /// The front-end's choice of features, before any ring is started.
  /// - Returns: false where it makes no sense (2.2.1): the device then stays as it was.
  public func accept(_ chosen: VirtioFeatures) -> Bool {
    guard offered.isSuperset(of: chosen), chosen.contains(.version1) else { return false }
    for (feature, needs) in VirtioFeatures.prerequisites
    where chosen.contains(feature) && !chosen.contains(needs) {
      return false
    }
    features = chosen
    return true
  }

  /// Starts a ring; its interrupts are those of the vector with its number. The device is in operation from the first
  /// one on.
  /// - Parameters:
  ///   - ring: even ones receive, odd ones transmit.
  ///   - pairs: queue pairs in use, of which the ring's is one.
  /// - Returns: false where the ring has a size or a place that it cannot have.
  public func startRing(_ ring: Int, _ setup: RingSetup, pairs: Int) -> Bool {
    guard (0..<2 * options.queuePairs).contains(ring), setup.size > 0,
      setup.size <= DeviceQueue.maximumSize,
      setup.size & (setup.size - 1) == 0 || features.contains(.packedRing),
      setup.descriptors % 16 == 0, setup.used % 4 == 0,
      setup.available % (features.contains(.packedRing) ? 4 : 2) == 0
    else { return false }
    var queue = DeviceQueue()
    queue.size = UInt16(setup.size)
    queue.vector = UInt16(ring)
    queue.descriptors = setup.descriptors
    queue.available = setup.available
    queue.used = setup.used
    queue.enable(features, &violations)
    guard queue.resume(at: setup.base) else { return false }
    queues[ring] = queue
    queuePairsInUse = pairs
    if !status.contains(.driverOK) {
      status = status.union([.acknowledge, .driver, .featuresOK, .driverOK])
      begin()
    }
    return true
  }

  /// The device reads and writes the ring no more.
  /// - Returns: where it would go on.
  public func stopRing(_ ring: Int, pairs: Int) -> UInt32 {
    guard queues.indices.contains(ring) else { return 0 }
    let base = queues[ring].base
    queues[ring].reset()
    queuePairsInUse = max(1, pairs)
    if !queues.contains(where: \.isEnabled) { status = [] }
    return base
  }
}
