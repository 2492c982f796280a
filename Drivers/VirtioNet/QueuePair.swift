import Driver
import Memory
import Rings

/// A receive and a transmit virtqueue of a network device (virtio 1.2, 5.1.6), in the format that was negotiated. One
/// thread.
///
/// The way of packets is in ``RingPair``, which is compiled for each format; here it is decided which, once a burst. That
/// nothing on it allocates, locks or counts references, the compiler proves where it sees all files at once, which is in
/// optimised builds.
public struct VirtioNetQueuePair: NetworkQueuePair, ~Copyable {
  private enum Format { case split, splitInOrder, packed, packedInOrder }

  // Invariant: `place` is an initialised pair of the format that `format` names, and this value owns it.
  private let format: Format
  private let place: UnsafeMutableRawPointer

  init(_ pair: consuming RingPair<SplitQueue<AnyOrder>>) {
    format = .split
    place = Self.own(pair)
  }

  init(_ pair: consuming RingPair<SplitQueue<InOrder>>) {
    format = .splitInOrder
    place = Self.own(pair)
  }

  init(_ pair: consuming RingPair<PackedQueue<AnyOrder>>) {
    format = .packed
    place = Self.own(pair)
  }

  init(_ pair: consuming RingPair<PackedQueue<InOrder>>) {
    format = .packedInOrder
    place = Self.own(pair)
  }

  private static func own<Ring: Virtqueue & ~Copyable>(
    _ pair: consuming RingPair<Ring>
  ) -> UnsafeMutableRawPointer {
    let place = UnsafeMutablePointer<RingPair<Ring>>.allocate(capacity: 1)
    place.initialize(to: pair)
    return UnsafeMutableRawPointer(place)
  }

  private var split: UnsafeMutablePointer<RingPair<SplitQueue<AnyOrder>>> {
    place.assumingMemoryBound(to: RingPair<SplitQueue<AnyOrder>>.self)
  }
  private var splitInOrder: UnsafeMutablePointer<RingPair<SplitQueue<InOrder>>> {
    place.assumingMemoryBound(to: RingPair<SplitQueue<InOrder>>.self)
  }
  private var packed: UnsafeMutablePointer<RingPair<PackedQueue<AnyOrder>>> {
    place.assumingMemoryBound(to: RingPair<PackedQueue<AnyOrder>>.self)
  }
  private var packedInOrder: UnsafeMutablePointer<RingPair<PackedQueue<InOrder>>> {
    place.assumingMemoryBound(to: RingPair<PackedQueue<InOrder>>.self)
  }

  deinit {
    switch format {
    case .split: split.deinitialize(count: 1)
    case .splitInOrder: splitInOrder.deinitialize(count: 1)
    case .packed: packed.deinitialize(count: 1)
    case .packedInOrder: packedInOrder.deinitialize(count: 1)
    }
    place.deallocate()
  }

  #if !DEBUG
    @_noLocks
  #endif
  public mutating func postReceive(_ burst: inout Burst) throws(DriverError) {
    switch format {
    case .split: split.pointee.postReceive(&burst)
    case .splitInOrder: splitInOrder.pointee.postReceive(&burst)
    case .packed: packed.pointee.postReceive(&burst)
    case .packedInOrder: packedInOrder.pointee.postReceive(&burst)
    }
  }

  #if !DEBUG
    @_noLocks
  #endif
  public mutating func receive(into burst: inout Burst) throws(DriverError) {
    switch format {
    case .split: try split.pointee.receive(into: &burst)
    case .splitInOrder: try splitInOrder.pointee.receive(into: &burst)
    case .packed: try packed.pointee.receive(into: &burst)
    case .packedInOrder: try packedInOrder.pointee.receive(into: &burst)
    }
  }

  #if !DEBUG
    @_noLocks
  #endif
  public mutating func transmit(_ burst: inout Burst) throws(DriverError) {
    switch format {
    case .split: split.pointee.transmit(&burst)
    case .splitInOrder: splitInOrder.pointee.transmit(&burst)
    case .packed: packed.pointee.transmit(&burst)
    case .packedInOrder: packedInOrder.pointee.transmit(&burst)
    }
  }

  #if !DEBUG
    @_noLocks
  #endif
  public mutating func completeTransmit(into burst: inout Burst) throws(DriverError) {
    switch format {
    case .split: try split.pointee.completeTransmit(into: &burst)
    case .splitInOrder: try splitInOrder.pointee.completeTransmit(into: &burst)
    case .packed: try packed.pointee.completeTransmit(into: &burst)
    case .packedInOrder: try packedInOrder.pointee.completeTransmit(into: &burst)
    }
  }

  public mutating func admission(
    of burst: borrowing Burst, from first: Int, through last: Int, behind places: inout Int
  ) -> TransmitAdmission {
    switch format {
    case .split:
      split.pointee.admission(of: burst, from: first, through: last, behind: &places)
    case .splitInOrder:
      splitInOrder.pointee.admission(of: burst, from: first, through: last, behind: &places)
    case .packed:
      packed.pointee.admission(of: burst, from: first, through: last, behind: &places)
    case .packedInOrder:
      packedInOrder.pointee.admission(of: burst, from: first, through: last, behind: &places)
    }
  }

  public var receiveRoom: Int {
    switch format {
    case .split: split.pointee.receiveRoom
    case .splitInOrder: splitInOrder.pointee.receiveRoom
    case .packed: packed.pointee.receiveRoom
    case .packedInOrder: packedInOrder.pointee.receiveRoom
    }
  }

  public mutating func armInterrupts(transmit: Bool) -> Bool {
    switch format {
    case .split: split.pointee.armInterrupts(transmit: transmit)
    case .splitInOrder: splitInOrder.pointee.armInterrupts(transmit: transmit)
    case .packed: packed.pointee.armInterrupts(transmit: transmit)
    case .packedInOrder: packedInOrder.pointee.armInterrupts(transmit: transmit)
    }
  }

  public mutating func disarmInterrupts() {
    switch format {
    case .split: split.pointee.disarmInterrupts()
    case .splitInOrder: splitInOrder.pointee.disarmInterrupts()
    case .packed: packed.pointee.disarmInterrupts()
    case .packedInOrder: packedInOrder.pointee.disarmInterrupts()
    }
  }

  /// Resets the receive ring alone, where the device can (VIRTIO_F_RING_RESET, 2.6.1), and brings it up again, empty and
  /// no longer broken. The other rings go on.
  /// - Parameter segments: gets what the device held; room for all of it is needed.
  public mutating func resetReceiveRing(into segments: inout Burst) throws(DriverError) {
    switch format {
    case .split: try split.pointee.resetReceiveRing(into: &segments)
    case .splitInOrder: try splitInOrder.pointee.resetReceiveRing(into: &segments)
    case .packed: try packed.pointee.resetReceiveRing(into: &segments)
    case .packedInOrder: try packedInOrder.pointee.resetReceiveRing(into: &segments)
    }
  }

  public mutating func takeBack(segments: inout Burst, packets: inout Burst) {
    switch format {
    case .split: split.pointee.takeBack(segments: &segments, packets: &packets)
    case .splitInOrder: splitInOrder.pointee.takeBack(segments: &segments, packets: &packets)
    case .packed: packed.pointee.takeBack(segments: &segments, packets: &packets)
    case .packedInOrder: packedInOrder.pointee.takeBack(segments: &segments, packets: &packets)
    }
  }

  public var statistics: QueueStatistics {
    switch format {
    case .split: split.pointee.statistics
    case .splitInOrder: splitInOrder.pointee.statistics
    case .packed: packed.pointee.statistics
    case .packedInOrder: packedInOrder.pointee.statistics
    }
  }
}
