/// The packets that wait because one of their flow that stands before them on the link has begun to arrive and is not
/// whole yet.
///
/// A flow has a queue, in link order, only while it has such a packet: at the queue's front. So everything waits only
/// for PDUs before its own: once they have come, nothing is held. Everything is allocated once; where a table
/// is full, a packet is handed up without waiting. One thread.
struct FlowOrder: ~Copyable, @unchecked Sendable {
  /// A packet in its flow's queue: one that has begun, or one that is whole and waits.
  struct Entry: BitwiseCopyable {
    var pieces = PieceList()
    /// Nothing more is to come: whole, or given up.
    var isSettled = false
    /// The PDU in which it begins.
    var number: UInt64 = 0
    var queue: Int32 = -1
    var next: Int32 = -1
  }

  struct Queue: BitwiseCopyable {
    var key = FlowKey(UnsafeRawBufferPointer(start: nil, count: 0))
    var first: Int32 = -1
    var last: Int32 = -1
    /// The next queue of the same bucket, or the next free one.
    var next: Int32 = -1
  }

  // Invariant: `entries` and `queues` have as many initialised elements as was asked for, `buckets` has
  // `bucketMask + 1`; every index in them is of an element, or -1. Free elements are linked by `next`.
  private let entries: UnsafeMutablePointer<Entry>
  private let queues: UnsafeMutablePointer<Queue>
  private let buckets: UnsafeMutablePointer<Int32>
  private let bucketMask: UInt64
  private let entryCount: Int
  private let queueCount: Int
  private var freeEntry: Int32 = 0
  private var freeQueue: Int32 = 0

  /// - Parameters:
  ///   - packets: that wait at most.
  ///   - flows: that have a packet which waits, at most: a power of two.
  init(packets: Int, flows: Int) {
    entryCount = packets
    queueCount = flows
    entries = .allocate(capacity: packets)
    entries.initialize(repeating: Entry(), count: packets)
    queues = .allocate(capacity: flows)
    queues.initialize(repeating: Queue(), count: flows)
    buckets = .allocate(capacity: flows)
    buckets.initialize(repeating: -1, count: flows)
    bucketMask = UInt64(flows - 1)
    clear()
  }

  deinit {
    entries.deallocate()
    queues.deallocate()
    buckets.deallocate()
  }

  mutating func clear() {
    for index in 0..<entryCount {
      entries[index] = Entry()
      entries[index].next = index + 1 < entryCount ? Int32(index + 1) : -1
    }
    for index in 0..<queueCount {
      queues[index] = Queue()
      queues[index].next = index + 1 < queueCount ? Int32(index + 1) : -1
      buckets[index] = -1
    }
    freeEntry = 0
    freeQueue = 0
  }

  /// A packet of the flow has begun and is not whole.
  /// - Returns: its entry, for ``settle(_:_:)``; -1 where the tables are full.
  mutating func begin(_ key: FlowKey, in number: UInt64) -> Int32 {
    var queue = find(key)
    if queue < 0 { queue = makeQueue(key) }
    if queue < 0 { return -1 }
    return insert(Entry(number: number, queue: queue), into: queue)
  }

  /// A whole packet takes its place in its flow's queue, if there is one. Then comes ``takeNext(_:)``.
  /// - Returns: the queue, or -1 where it waits for nothing.
  mutating func wait(_ key: FlowKey, _ packet: PieceList, in number: UInt64) -> Int32 {
    let queue = find(key)
    if queue < 0 { return -1 }
    let entry = Entry(pieces: packet, isSettled: true, number: number, queue: queue)
    return insert(entry, into: queue) < 0 ? -1 : queue
  }

  /// The packet of an entry is whole, or (an empty list) given up. Then comes ``takeNext(_:)``.
  /// - Returns: the queue of its flow.
  mutating func settle(_ entry: Int32, _ packet: PieceList) -> Int32 {
    entries[Int(entry)].pieces = packet
    entries[Int(entry)].isSettled = true
    return entries[Int(entry)].queue
  }

  /// Takes the packet at a queue's front, where it waits for nothing. With its last packet the queue goes.
  /// - Returns: nil where there is none; an empty list for one that was given up.
  mutating func takeNext(_ queue: Int32) -> PieceList? {
    let index = queues[Int(queue)].first
    if index < 0 {
      removeQueue(queue)
      return nil
    }
    let entry = entries[Int(index)]
    if !entry.isSettled { return nil }
    queues[Int(queue)].first = entry.next
    if entry.next < 0 { queues[Int(queue)].last = -1 }
    entries[Int(index)].next = freeEntry
    freeEntry = index
    return entry.pieces
  }

  private func find(_ key: FlowKey) -> Int32 {
    var queue = buckets[Int(key.hash & bucketMask)]
    while queue >= 0 && queues[Int(queue)].key != key { queue = queues[Int(queue)].next }
    return queue
  }

  private mutating func makeQueue(_ key: FlowKey) -> Int32 {
    let queue = freeQueue
    if queue < 0 || freeEntry < 0 { return -1 }
    freeQueue = queues[Int(queue)].next
    let bucket = Int(key.hash & bucketMask)
    queues[Int(queue)] = Queue(key: key, next: buckets[bucket])
    buckets[bucket] = queue
    return queue
  }

  private mutating func removeQueue(_ queue: Int32) {
    let bucket = Int(queues[Int(queue)].key.hash & bucketMask)
    let next = queues[Int(queue)].next
    if buckets[bucket] == queue {
      buckets[bucket] = next
    } else {
      var before = buckets[bucket]
      while queues[Int(before)].next != queue { before = queues[Int(before)].next }
      queues[Int(before)].next = next
    }
    queues[Int(queue)].next = freeQueue
    freeQueue = queue
  }

  private mutating func insert(_ entry: Entry, into queue: Int32) -> Int32 {
    let index = freeEntry
    if index < 0 { return -1 }
    freeEntry = entries[Int(index)].next
    entries[Int(index)] = entry
    var before = queues[Int(queue)].last
    if before >= 0 && entries[Int(before)].number > entry.number {
      before = -1
      var next = queues[Int(queue)].first
      while entries[Int(next)].number <= entry.number {
        before = next
        next = entries[Int(next)].next
      }
    }
    if before >= 0 {
      entries[Int(index)].next = entries[Int(before)].next
      entries[Int(before)].next = index
    } else {
      entries[Int(index)].next = queues[Int(queue)].first
      queues[Int(queue)].first = index
    }
    if entries[Int(index)].next < 0 { queues[Int(queue)].last = index }
    return index
  }
}
