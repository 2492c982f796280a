import CLinux
import Glibc
import Memory

/// The memory of one instance's channel.
public struct ChannelMemory: ~Copyable {
  public let layout: ChannelLayout
  private let arena: Arena

  public var descriptor: Int32 { arena.descriptor }

  /// Makes a channel.
  public init(layout: ChannelLayout) throws(ChannelError) {
    self.layout = layout
    do throws(MemoryError) {
      arena = try Arena(
        byteCount: layout.byteCount, pageSize: .ordinary, name: "martlet-channel")
    } catch {
      throw .memory(error)
    }
    arena.address.storeBytes(of: ChannelLayout.magic, as: UInt32.self)
    arena.address.storeBytes(of: ChannelLayout.version, toByteOffset: 4, as: UInt32.self)
    arena.address.storeBytes(of: UInt32(layout.queues), toByteOffset: 8, as: UInt32.self)
    arena.address.storeBytes(of: UInt32(layout.slots), toByteOffset: 12, as: UInt32.self)
  }

  /// Attaches to a channel that another process has made. The descriptor is the channel's from now on.
  /// - Parameter keepsDescriptor: false closes it as soon as the memory is mapped.
  public init(
    adopting descriptor: Int32, layout: ChannelLayout, keepsDescriptor: Bool = true
  ) throws(ChannelError) {
    let arena: Arena
    do throws(MemoryError) {
      arena = try Arena(
        adopting: descriptor, byteCount: layout.byteCount, keepsDescriptor: keepsDescriptor)
    } catch {
      throw .memory(error)
    }
    let words = arena.address.assumingMemoryBound(to: UInt32.self)
    let (magic, version, queues, slots) = (words[0], words[1], words[2], words[3])
    guard magic == ChannelLayout.magic, version == ChannelLayout.version else {
      throw .foreign(magic: magic, version: version)
    }
    guard queues == layout.queues, slots == layout.slots else {
      throw .badLayout(queues: Int(queues), slots: Int(slots))
    }
    self.layout = layout
    self.arena = arena
  }

  /// Asks the instance to end: for one that polls and hears no message.
  public func askToEnd() { release_store32(endWord, 1) }

  /// The host uses the channel no more: why, then the word that asks the instance to end.
  public var end: ChannelEnd { ChannelEnd(header: arena.address) }

  /// All of the channel's memory, in this process.
  public var bytes: UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(start: arena.address, count: arena.byteCount)
  }

  /// Not 0 once the instance should end.
  public var endWord: UnsafeMutableRawPointer { arena.address + ChannelLayout.endWord }

  /// Says that a message waits on the control socket, which an instance that polls does not look at by itself. After
  /// the message was sent; by one process.
  public func announceNews() { release_store32(newsWord, relaxed_load32(newsWord) &+ 1) }

  /// Changes with each ``announceNews()``.
  public var newsWord: UnsafeMutableRawPointer { arena.address + ChannelLayout.newsWord }

  /// How far a queue's receive ring has been written and read, as both ends say: not checked.
  public func receiveProgress(_ queue: Int) -> (written: UInt32, taken: UInt32) {
    (
      relaxed_load32(arena.address + layout.producerIndex(queue, .receive)),
      relaxed_load32(arena.address + layout.consumerIndex(queue, .receive))
    )
  }

  func producer(
    _ queue: Int, _ ring: ChannelLayout.Ring, from index: UInt32 = 0
  ) -> RingProducer {
    RingProducer(
      slots: slots(queue, ring), own: arena.address + layout.producerIndex(queue, ring),
      peer: arena.address + layout.consumerIndex(queue, ring), count: layout.slots, from: index)
  }

  func consumer(
    _ queue: Int, _ ring: ChannelLayout.Ring, from index: UInt32 = 0
  ) -> RingConsumer {
    RingConsumer(
      slots: slots(queue, ring), own: arena.address + layout.consumerIndex(queue, ring),
      peer: arena.address + layout.producerIndex(queue, ring), count: layout.slots, from: index)
  }

  func address(_ offset: Int) -> UnsafeMutableRawPointer { arena.address + offset }

  private func slots(
    _ queue: Int, _ ring: ChannelLayout.Ring
  ) -> UnsafeMutablePointer<Descriptor> {
    (arena.address + layout.slots(queue, ring)).assumingMemoryBound(to: Descriptor.self)
  }
}

/// A sleep word and the descriptor of one queue: how an end sleeps and wakes the other.
///
/// An eventfd has one O_NONBLOCK flag for all who hold it: an instance could take that away, fill the eventfd, and so hold
/// a host that writes to it. The host therefore rings at its end of a pair of sockets (``CommandDoorbell/pair()``) by calls
/// that never wait. The way to the host is an eventfd of the instance's own for each queue: the host only waits for it and
/// neither reads nor writes it.
@frozen
public struct Doorbell: @unchecked Sendable {
  // Invariant: both words stay mapped as long as the channel's memory.
  @usableFromInline let ownSleeps: UnsafeMutableRawPointer
  @usableFromInline let peerSleeps: UnsafeMutableRawPointer
  @usableFromInline let peer: Int32
  @usableFromInline let kind: Kind

  /// What ``peer`` is.
  @usableFromInline enum Kind {
    case socket
    case event
  }

  init(
    ownSleeps: UnsafeMutableRawPointer, peerSleeps: UnsafeMutableRawPointer, peer: Int32,
    _ kind: Kind
  ) {
    self.ownSleeps = ownSleeps
    self.peerSleeps = peerSleeps
    self.peer = peer
    self.kind = kind
  }

  /// After publishing: wakes the other end if it sleeps. The fence orders our index before its word; without it both
  /// ends could miss each other.
  @inlinable
  public func ring() {
    full_fence()
    ringAfterFence()
  }

  /// As ``ring()``, after a full fence behind what was published.
  @inlinable
  func ringAfterFence() {
    if relaxed_load32(peerSleeps) != 0 { signal() }
  }

  /// Of what is full, the other end has enough to wake it.
  @_semantics("no_performance_analysis")
  @inline(never) @usableFromInline
  func signal() {
    relaxed_store32(peerSleeps, 0)
    var one: UInt64 = 1
    switch kind {
    case .socket: _ = send(peer, &one, 8, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    case .event:
      // Looks before it writes, so that a host that has filled the eventfd does not hold the instance.
      var event = pollfd(fd: peer, events: Int16(POLLOUT), revents: 0)
      guard poll(&event, 1, 0) == 1, event.revents & Int16(POLLOUT) != 0 else { return }
      _ = write(peer, &one, 8)
    }
  }

  /// Wakes the other end whether or not it says that it sleeps: for the last word on a channel.
  public func ringAlways() { signal() }

  /// Says that this end is about to sleep. Afterwards the caller looks at its rings once more before it does.
  @inlinable
  public func announceSleep() {
    relaxed_store32(ownSleeps, 1)
    full_fence()
  }

  @inlinable
  public func awake() { relaxed_store32(ownSleeps, 0) }
}

/// The driver host's end of one queue of a channel. One thread.
public struct HostEnd: ~Copyable {
  public var receive: RingProducer
  public var transmit: RingConsumer
  public var completion: RingProducer
  public var free: RingConsumer
  public let doorbell: Doorbell
  // Invariant: stays mapped as long as the channel's memory.
  @usableFromInline let wish: UnsafeMutableRawPointer

  /// Whether the instance wants what has come in a burst as aggregates (``/Memory/Burst/joinPackets(from:)``).
  @inlinable public var wantsAggregates: Bool { relaxed_load32(wish) != 0 }

  /// - Parameters:
  ///   - instanceDoorbell: the host's end of the pair of sockets that wakes the instance.
  ///   - places: how far the host before had come on each ring; ``RingPlaces/start`` for a new channel.
  public init(
    _ memory: borrowing ChannelMemory, queue: Int, instanceDoorbell: Int32,
    from places: RingPlaces = .start
  ) {
    wish = memory.address(memory.layout.wantsAggregates(queue))
    receive = memory.producer(queue, .receive, from: places.receive)
    transmit = memory.consumer(queue, .transmit, from: places.transmit)
    completion = memory.producer(queue, .completion, from: places.completion)
    free = memory.consumer(queue, .free, from: places.free)
    doorbell = Doorbell(
      ownSleeps: memory.address(memory.layout.hostSleeps(queue)),
      peerSleeps: memory.address(memory.layout.instanceSleeps(queue)), peer: instanceDoorbell,
      .socket)
  }

  /// - Returns: whether the caller may sleep: false where something has come in meanwhile.
  public func prepareToSleep() -> Bool {
    doorbell.announceSleep()
    return transmit.isEmpty() && free.isEmpty()
  }

  /// Goes on where a host before ended: shows the instance how far that had come, and wakes it.
  /// - Returns: false where the instance has read more than was written: one of the two is wrong.
  public mutating func takeOver() -> Bool {
    guard receive.hasPlausiblePeer, completion.hasPlausiblePeer else { return false }
    receive.publish()
    completion.publish()
    transmit.publish()
    free.publish()
    doorbell.awake()
    doorbell.ringAlways()
    return true
  }
}

/// How far a host has come on the four rings of a queue: indices that run freely.
public struct RingPlaces: Equatable, Sendable {
  public var receive: UInt32
  public var transmit: UInt32
  public var completion: UInt32
  public var free: UInt32

  public init(receive: UInt32, transmit: UInt32, completion: UInt32, free: UInt32) {
    self.receive = receive
    self.transmit = transmit
    self.completion = completion
    self.free = free
  }

  /// Of a channel that nobody has used.
  public static let start = RingPlaces(receive: 0, transmit: 0, completion: 0, free: 0)
}

/// A stack instance's end of one queue of a channel. One thread.
public struct InstanceEnd: ~Copyable {
  public var receive: RingConsumer
  public var transmit: RingProducer
  public var completion: RingConsumer
  public var free: RingProducer
  public let doorbell: Doorbell
  /// What the host was last told of: slots sent and given back, and completions taken.
  @usableFromInline var told: UInt32 = 0
  @usableFromInline var completionsTaken: UInt32 = 0
  // Invariant: stays mapped as long as the channel's memory.
  private let wish: UnsafeMutableRawPointer

  /// From now on, what comes in a burst comes as aggregates of as many packets as an aggregate can have, to be opened by
  /// ``/Memory/Burst/openAggregates()``; or no longer. What is in the ring already stays as it is.
  public func wantAggregates(_ wanted: Bool = true) { relaxed_store32(wish, wanted ? 1 : 0) }

  /// - Parameter hostDoorbell: the eventfd that wakes the host's thread of the queue.
  public init(_ memory: borrowing ChannelMemory, queue: Int, hostDoorbell: Int32) {
    wish = memory.address(memory.layout.wantsAggregates(queue))
    receive = memory.consumer(queue, .receive)
    transmit = memory.producer(queue, .transmit)
    completion = memory.consumer(queue, .completion)
    free = memory.producer(queue, .free)
    doorbell = Doorbell(
      ownSleeps: memory.address(memory.layout.instanceSleeps(queue)),
      peerSleeps: memory.address(memory.layout.hostSleeps(queue)), peer: hostDoorbell, .event)
  }

  /// Wakes the host's thread of this queue if it sleeps and there is news for it: slots sent or given back since the
  /// last time, or room in a completion ring that was full.
  @inlinable @_noLocks
  public mutating func ring() {
    // Both only grow, so that their sum changes whenever one does.
    let published = transmit.next &+ free.next
    var hasNews = published != told
    if !hasNews && completion.next == completionsTaken { return }
    // The host sees what was taken before we look whether the ring was full: without the fence it could find no room and
    // we a ring that is not full, and it would sleep (Models/FullRing.pml).
    full_fence()
    told = published
    if completion.next != completionsTaken {
      if completion.published &- completionsTaken > completion.mask { hasNews = true }
      completionsTaken = completion.next
    }
    if hasNews { doorbell.ringAfterFence() }
  }

  /// - Returns: whether the caller may sleep: false where something has come in meanwhile.
  public func prepareToSleep() -> Bool {
    doorbell.announceSleep()
    return receive.isEmpty() && completion.isEmpty()
  }
}
