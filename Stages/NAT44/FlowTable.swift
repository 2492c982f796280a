/// One flow through a NAT: who sends from inside, to whom, and by which port of the outside address.
struct NATFlow {
  var key: NATFlowKey
  var outsidePort: UInt16 = 0
  /// Of TCP: an answer has come; inside and outside have ended their halves; it was reset.
  var isAnswered = false
  var insideEnded = false
  var outsideEnded = false
  var wasReset = false
  var isInUse = false
  /// Nanoseconds.
  var expires: UInt64 = 0
  /// The next one of its bucket, or of those that are free; -1 for none.
  var next: Int32 = -1
}

/// Addresses and ports as they are inside. Of ICMP, the identifier is the inside port and there is no remote one.
struct NATFlowKey: Equatable {
  var transport: UInt8
  var address: UInt32
  var port: UInt16
  var remoteAddress: UInt32
  var remotePort: UInt16

  fileprivate func hash(_ seed: UInt64) -> UInt64 {
    let one = UInt64(address) << 32 | UInt64(remoteAddress)
    let other = UInt64(transport) << 32 | UInt64(port) << 16 | UInt64(remotePort)
    return mix(mix(one ^ seed) ^ other)
  }

  /// The finaliser of MurmurHash3.
  private func mix(_ value: UInt64) -> UInt64 {
    var value = value
    value = (value ^ value >> 33) &* 0xff51_afd7_ed55_8ccd
    value = (value ^ value >> 33) &* 0xc4ce_b9fe_1a85_ec53
    return value ^ value >> 33
  }
}

/// A NAT's flows: as many as there are places for, each found from inside by its key, from outside by its port. Allocates
/// nothing once it is made.
struct FlowTable {
  private(set) var flows: [NATFlow]
  private var buckets: [Int32]
  /// For each of TCP, UDP and ICMP, the flow of each port; -1 for none.
  private var portOwners: [Int32]
  private var portsUsed = [0, 0, 0]
  private let ports: ClosedRange<UInt16>
  private var firstFree: Int32 = 0
  private(set) var count = 0
  /// Who sends chooses addresses and ports, not buckets.
  private let seed: UInt64
  private var random: UInt64

  init(maximum: Int, ports: ClosedRange<UInt16>) {
    flows = (0..<maximum).map { index in
      var flow = NATFlow(
        key: NATFlowKey(transport: 0, address: 0, port: 0, remoteAddress: 0, remotePort: 0))
      flow.next = index + 1 < maximum ? Int32(index + 1) : -1
      return flow
    }
    var size = 16
    while size < 2 * maximum { size *= 2 }
    buckets = Array(repeating: -1, count: size)
    portOwners = Array(repeating: -1, count: 3 * ports.count)
    self.ports = ports
    seed = .random(in: 0...(.max))
    random = .random(in: 1...(.max))
  }

  private func bucket(_ key: NATFlowKey) -> Int {
    Int(truncatingIfNeeded: key.hash(seed)) & (buckets.count - 1)
  }

  private func protocolIndex(_ transport: UInt8) -> Int {
    transport == 6 ? 0 : transport == 17 ? 1 : 2
  }

  private func place(_ port: UInt16, _ transport: UInt8) -> Int? {
    guard ports.contains(port) else { return nil }
    return protocolIndex(transport) * ports.count + Int(port - ports.lowerBound)
  }

  subscript(index: Int) -> NATFlow {
    get { flows[index] }
    _modify { yield &flows[index] }
  }

  /// The flow of a key that has not expired.
  mutating func find(_ key: NATFlowKey, at now: UInt64) -> Int? {
    var index = Int(buckets[bucket(key)])
    while index >= 0 {
      if flows[index].key == key {
        if flows[index].expires > now { return index }
        remove(index)
        return nil
      }
      index = Int(flows[index].next)
    }
    return nil
  }

  /// The flow of a port of the outside address that has not expired.
  mutating func find(outsidePort port: UInt16, _ transport: UInt8, at now: UInt64) -> Int? {
    guard let place = place(port, transport), portOwners[place] >= 0 else { return nil }
    let index = Int(portOwners[place])
    if flows[index].expires > now { return index }
    remove(index)
    return nil
  }

  /// A new flow, whose key must not be there.
  /// - Returns: nil where there is no place or no port.
  mutating func add(_ key: NATFlowKey) -> Int? {
    let kind = protocolIndex(key.transport)
    guard firstFree >= 0, portsUsed[kind] < ports.count else { return nil }
    let place = freePlace(key)
    let index = Int(firstFree)
    firstFree = flows[index].next
    var flow = NATFlow(key: key)
    flow.outsidePort = ports.lowerBound + UInt16(place - kind * ports.count)
    flow.isInUse = true
    let bucket = bucket(key)
    flow.next = buckets[bucket]
    buckets[bucket] = Int32(index)
    flows[index] = flow
    portOwners[place] = Int32(index)
    portsUsed[kind] += 1
    count += 1
    return index
  }

  /// The inside's own port where that is free, else one that nobody can foretell (RFC 6056).
  private mutating func freePlace(_ key: NATFlowKey) -> Int {
    if let own = place(key.port, key.transport), portOwners[own] < 0 { return own }
    random ^= random << 13
    random ^= random >> 7
    random ^= random << 17
    let first = protocolIndex(key.transport) * ports.count
    var offset = Int(random % UInt64(ports.count))
    while portOwners[first + offset] >= 0 { offset = (offset + 1) % ports.count }
    return first + offset
  }

  private mutating func remove(_ index: Int) {
    let flow = flows[index]
    let bucket = bucket(flow.key)
    if buckets[bucket] == Int32(index) {
      buckets[bucket] = flow.next
    } else {
      var before = Int(buckets[bucket])
      while flows[before].next != Int32(index) { before = Int(flows[before].next) }
      flows[before].next = flow.next
    }
    if let place = place(flow.outsidePort, flow.key.transport) { portOwners[place] = -1 }
    portsUsed[protocolIndex(flow.key.transport)] -= 1
    flows[index].isInUse = false
    flows[index].next = firstFree
    firstFree = Int32(index)
    count -= 1
  }

  /// Takes out what has expired.
  mutating func sweep(at now: UInt64) {
    for index in flows.indices where flows[index].isInUse && flows[index].expires <= now {
      remove(index)
    }
  }
}
