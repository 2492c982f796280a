/// What a host counts for each instance, on each queue; published as the sum over the queues.
enum InstanceCounter: Int, CaseIterable {
  case receivedPackets
  case receivedBytes
  case copiedPackets
  case copiedBytes
  case droppedRingFull
  case droppedNoSegment
  case droppedBudget
  case sentPackets
  case sentBytes
  case headerBytesCopied
  case sentInPlace
  case refusedSource
  case sendErrors
  case outOfTime
  case segmentsHost
  case segmentsInstance
  case segmentsSending
  case ringReceive
  case ringTransmit

  /// Whether it says how many there are now, not how many there have been.
  var isState: Bool {
    switch self {
    case .segmentsHost, .segmentsInstance, .segmentsSending, .ringReceive, .ringTransmit: true
    default: false
    }
  }

  /// By DPDK's xstats grammar.
  func name(_ instance: Int) -> String {
    switch self {
    case .receivedPackets: "rx_i\(instance)_packets"
    case .receivedBytes: "rx_i\(instance)_bytes"
    case .copiedPackets: "rx_i\(instance)_copied_packets"
    case .copiedBytes: "rx_i\(instance)_copied_bytes"
    case .droppedRingFull: "rx_i\(instance)_dropped_ring_full"
    case .droppedNoSegment: "rx_i\(instance)_dropped_no_segment"
    case .droppedBudget: "rx_i\(instance)_dropped_budget"
    case .sentPackets: "tx_i\(instance)_packets"
    case .sentBytes: "tx_i\(instance)_bytes"
    case .headerBytesCopied: "tx_i\(instance)_header_bytes_copied"
    case .sentInPlace: "tx_i\(instance)_sent_in_place"
    case .refusedSource: "tx_i\(instance)_refused_source"
    case .sendErrors: "tx_i\(instance)_errors"
    case .outOfTime: "i\(instance)_out_of_time"
    case .segmentsHost: "rx_i\(instance)_segments_host"
    case .segmentsInstance: "rx_i\(instance)_segments_instance"
    case .segmentsSending: "rx_i\(instance)_segments_sending"
    case .ringReceive: "i\(instance)_ring_level_receive"
    case .ringTransmit: "i\(instance)_ring_level_transmit"
    }
  }
}

/// What a host of several instances counts besides, on each queue; published as the sum over the queues.
@usableFromInline
enum SharedCounter: Int, CaseIterable {
  case droppedUnclaimed
  case droppedForeign
  case droppedMalformed
  case droppedByRule
  case tagged
  case closed

  var name: String {
    switch self {
    case .droppedUnclaimed: "rx_dropped_unclaimed"
    case .droppedForeign: "rx_dropped_foreign"
    case .droppedMalformed: "rx_dropped_malformed"
    case .droppedByRule: "rx_dropped_rule"
    case .tagged: "rx_tagged_packets"
    case .closed: "instances_closed"
    }
  }
}

/// Counters of one thread and how much of each has been published, named by an enumeration.
@usableFromInline
struct CounterBlock<Name: CaseIterable & RawRepresentable>: ~Copyable where Name.RawValue == Int {
  // Invariant: two rows of `count` initialised words: what was counted, and what of it has been published.
  @usableFromInline let words: UnsafeMutablePointer<UInt64>
  private let count: Int

  init() {
    count = Name.allCases.count
    words = .allocate(capacity: 2 * count)
    words.initialize(repeating: 0, count: 2 * count)
  }

  @inlinable
  deinit { words.deallocate() }

  subscript(name: Name) -> UInt64 {
    @inline(__always) get { words[name.rawValue] }
    @inline(__always) nonmutating set { words[name.rawValue] = newValue }
  }

  /// What has been counted since the last call, for each counter where that is anything: its number and the change.
  func publish(_ body: (Int, UInt64) -> Void) {
    for index in 0..<count where words[index] != words[count + index] {
      body(index, words[index] &- words[count + index])
      words[count + index] = words[index]
    }
  }
}
