import ControlLoops
import Memory

/// The C control's receive (`receive.c`): what ``ReceiveLoop`` does.
public struct CReceiveLoop: PathLoop, ~Copyable {
  private let arena: Arena
  private let ring: Arena
  private let loop: OpaquePointer

  public init() throws {
    let arena = try Arena.withBestPages(byteCount: RawDevice.arenaBytes, name: "martlet-control")
    let ring = try Arena.withBestPages(byteCount: 2 << 20, name: "martlet-control-ring")
    arena.writeReceiveHeaders(byteCount: RawDevice.partBytes)
    guard let loop = control_receive_make(ring.address, arena.address, RawDevice.partBytes) else {
      throw UnsupportedLoop(description: "out of memory")
    }
    self.arena = arena
    self.ring = ring
    self.loop = loop
  }

  deinit { control_receive_free(loop) }

  public mutating func run(bursts: Int) throws -> Int {
    Int(control_receive_run(loop, UInt64(bursts)))
  }
}

/// The C control's transmit (`transmit.c`): what ``TransmitLoop`` does.
public struct CTransmitLoop: PathLoop, ~Copyable {
  private let arena: Arena
  private let ring: Arena
  private let loop: OpaquePointer

  public init() throws {
    let arena = try Arena.withBestPages(byteCount: RawDevice.arenaBytes, name: "martlet-control")
    let ring = try Arena.withBestPages(byteCount: 2 << 20, name: "martlet-control-ring")
    guard let loop = control_transmit_make(ring.address, arena.address, RawDevice.arenaBytes)
    else { throw UnsupportedLoop(description: "out of memory") }
    self.arena = arena
    self.ring = ring
    self.loop = loop
  }

  deinit { control_transmit_free(loop) }

  public mutating func run(bursts: Int) throws -> Int {
    Int(control_transmit_run(loop, UInt64(bursts)))
  }
}

/// The C control's ring (`ring.c`), both ends in one thread: what ``ChannelLoop`` does.
public struct CChannelLoop: PathLoop, ~Copyable {
  private let memory: Arena
  private let producer: OpaquePointer
  private let consumer: OpaquePointer

  public init() throws {
    let memory = try Arena(byteCount: 32 << 10, pageSize: .ordinary, name: "martlet-control")
    let (own, peer) = (memory.address, memory.address + 64)
    guard let producer = control_ring_make(memory.address + 4096, 1024, own, peer),
      let consumer = control_ring_make(memory.address + 4096, 1024, peer, own)
    else { throw UnsupportedLoop(description: "out of memory") }
    self.memory = memory
    self.producer = producer
    self.consumer = consumer
  }

  deinit {
    control_ring_free(producer)
    control_ring_free(consumer)
  }

  public mutating func run(bursts: Int) throws -> Int {
    Int(control_ring_run(producer, consumer, UInt64(bursts)))
  }
}

/// The C control's pool (`pool.c`): what ``PoolLoop`` does.
public struct CPoolLoop: PathLoop, ~Copyable {
  private let arena: Arena
  private let pool: OpaquePointer
  private let bulk: Int

  public init(bulk: Int) throws {
    let arena = try Arena.withBestPages(byteCount: 32 << 20, name: "martlet-control-pool")
    guard let pool = control_pool_make(arena.address, arena.byteCount) else {
      throw UnsupportedLoop(description: "out of memory")
    }
    self.arena = arena
    self.pool = pool
    self.bulk = bulk
  }

  deinit { control_pool_free(pool) }

  public mutating func run(bursts: Int) throws -> Int {
    Int(control_pool_run(pool, UInt32(bulk), UInt64(bursts &* Self.burstSize / bulk)))
  }
}
