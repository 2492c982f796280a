import CLinux
import Glibc
import Memory

/// Memory by which the supervisor tells the driver host's queue threads what to capture, and in which they put what they
/// have captured: one page of orders, a program for each slot, and a ring for each slot and queue. The supervisor makes it
/// once for a run; every host of the run inherits it, so that a capture outlives the host. Pages are there only while
/// somebody captures.
///
/// Layout: word 0 of the first page is the generation, which changes with every order; from 64 on each slot's order. Then
/// come the programs, then the rings by slot and queue.
public struct CaptureArea: ~Copyable, @unchecked Sendable {
  // Invariant: `address` points at `byteCount(queues:)` mapped bytes until deinit.
  let address: UnsafeMutableRawPointer
  public let queues: Int
  /// -1 where it has not been kept.
  public let descriptor: Int32

  /// Captures at a time.
  public static let slots = 4
  /// The most bytes of a ring's packets.
  public static let maximumRingBytes = 16 << 20
  static let pageBytes = 4096
  static let programBytes =
    FilterProgram.maximumInstructions * MemoryLayout<FilterInstruction>.stride
  private static let ringStride = pageBytes + maximumRingBytes
  private static let ringsStart = pageBytes + slots * programBytes

  static func byteCount(queues: Int) -> Int { ringsStart + slots * queues * ringStride }

  /// Makes one without an order.
  /// - Parameter queues: queue threads of the host.
  public init(queues: Int) throws(MemoryError) {
    let made = try Self.make("martlet-capture", byteCount: Self.byteCount(queues: queues))
    do throws(MemoryError) {
      address = try Self.map(made, byteCount: Self.byteCount(queues: queues), isWritable: true)
    } catch {
      close(made)
      throw error
    }
    descriptor = made
    self.queues = queues
  }

  /// Maps one that came from another process. The descriptor is closed.
  public init(
    adopting descriptor: Int32, queues: Int, isWritable: Bool
  ) throws(MemoryError) {
    defer { close(descriptor) }
    try Self.check(descriptor, byteCount: Self.byteCount(queues: queues))
    address = try Self.map(
      descriptor, byteCount: Self.byteCount(queues: queues), isWritable: isWritable)
    self.descriptor = -1
    self.queues = queues
  }

  deinit {
    munmap(address, Self.byteCount(queues: queues))
    if descriptor >= 0 { close(descriptor) }
  }

  /// Sparse memory of a fixed size, which only its maker's user may open again.
  static func make(_ name: String, byteCount: Int) throws(MemoryError) -> Int32 {
    let descriptor = linux_memfd_create(name, LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING)
    guard descriptor >= 0 else { throw .system(call: "memfd_create", errno: -descriptor) }
    let seals = Int(LINUX_F_SEAL_SHRINK | LINUX_F_SEAL_GROW | LINUX_F_SEAL_SEAL)
    guard fchmod(descriptor, 0o600) == 0, ftruncate(descriptor, byteCount) == 0,
      linux_fcntl(descriptor, LINUX_F_ADD_SEALS, seals) >= 0
    else {
      let failure = errno
      close(descriptor)
      throw .system(call: "making the capture's memory", errno: failure)
    }
    return descriptor
  }

  static func check(_ descriptor: Int32, byteCount: Int) throws(MemoryError) {
    var status = stat()
    let result = linux_fstat(descriptor, &status)
    guard result == 0 else { throw .system(call: "fstat", errno: -result) }
    guard Int(status.st_size) >= byteCount else {
      throw .tooSmall(byteCount: Int(status.st_size), needed: byteCount)
    }
    let seals = linux_fcntl(descriptor, LINUX_F_GET_SEALS, 0)
    guard seals >= 0, seals & LINUX_F_SEAL_SHRINK != 0 else { throw .notSealed }
  }

  /// No page of it is made by that.
  static func map(
    _ descriptor: Int32, byteCount: Int, isWritable: Bool
  ) throws(MemoryError) -> UnsafeMutableRawPointer {
    guard
      let mapped = linux_mmap(
        nil, byteCount, isWritable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, descriptor, 0)
    else { throw .system(call: "mapping the capture's memory", errno: errno) }
    return mapped
  }

  /// The memory's descriptor once more, for who only reads.
  public func readOnlyDescriptor() throws(MemoryError) -> Int32 {
    let opened = open("/proc/self/fd/\(descriptor)", O_RDONLY | O_CLOEXEC)
    guard opened >= 0 else { throw .system(call: "opening the capture's memory", errno: errno) }
    return opened
  }

  // MARK: Places

  func order(_ slot: Int) -> UnsafeMutableRawPointer { address + 64 + slot * 64 }
  func program(_ slot: Int) -> UnsafeMutableRawPointer {
    address + Self.pageBytes + slot * Self.programBytes
  }
  private static func ringOffset(_ slot: Int, _ queue: Int, queues: Int) -> Int {
    precondition((0..<slots).contains(slot) && (0..<queues).contains(queue))
    return ringsStart + (slot * queues + queue) * ringStride
  }
  func ring(_ slot: Int, _ queue: Int) -> UnsafeMutableRawPointer {
    address + Self.ringOffset(slot, queue, queues: queues)
  }

  // MARK: Supervisor

  /// Has the queue threads capture in a slot that is free.
  /// - Parameter program: checked already.
  /// - Throws: where there is not as much memory.
  public func begin(
    _ order: inout CaptureOrder, program: [FilterInstruction], slot: Int
  ) throws(MemoryError) {
    precondition(program.count <= FilterProgram.maximumInstructions)
    for queue in 0..<queues {
      let start = Self.ringOffset(slot, queue, queues: queues)
      let result = linux_allocate(
        descriptor, off_t(start), off_t(Self.pageBytes + order.ringBytes))
      guard result == 0 else {
        empty(slot)
        throw .system(call: "memory for the capture", errno: -result)
      }
    }
    for (place, instruction) in program.enumerated() {
      self.program(slot).storeBytes(
        of: instruction, toByteOffset: place * 8, as: FilterInstruction.self)
    }
    order.instructions = UInt32(program.count)
    post(order, slot)
  }

  /// Changes what a slot's order says of points and instances.
  public func change(_ order: CaptureOrder, slot: Int) { post(order, slot) }

  private func post(_ order: CaptureOrder, _ slot: Int) {
    // Odd while an order is being written: a thread that reads one meanwhile reads it again.
    release_store64(address, relaxed_load64(address) &+ 1)
    full_fence()
    self.order(slot).storeBytes(of: order, as: CaptureOrder.self)
    release_store64(address, relaxed_load64(address) &+ 1)
  }

  /// Ends a capture; ``empty(_:)`` gives its memory back.
  public func end(slot: Int) { post(CaptureOrder(), slot) }

  /// Gives the pages of a slot's rings back to the system.
  public func empty(_ slot: Int) {
    let start = Self.ringOffset(slot, 0, queues: queues)
    _ = linux_punch_hole(descriptor, off_t(start), off_t(queues * Self.ringStride))
  }
}

/// What is to be captured: 64 bytes in the area's first page.
@frozen
public struct CaptureOrder: BitwiseCopyable, Sendable, Equatable {
  /// Which capture it is: each has a number of its own. 0 for none.
  public var session: UInt64 = 0
  /// Instructions of the filter.
  public internal(set) var instructions: UInt32 = 0
  /// The most bytes of a packet that are kept.
  public var snapLength: UInt32 = 262_144
  /// Of each ring, a power of two.
  public var ringSize: UInt32 = 0
  /// A bit for each ``CapturePoint``.
  public var points: UInt32 = 0
  /// Instances whose points are wanted, a bit for each slot.
  public var receivers: UInt64 = 0
  public var senders: UInt64 = 0
  /// Each packet has a time of its own; else those of a burst have one.
  public var isPrecise: UInt32 = 0
  private var unused: UInt32 = 0

  public init() {}

  public var ringBytes: Int { Int(ringSize) }

  public mutating func want(_ point: CapturePoint) { points |= 1 << UInt32(point.rawValue) }
  public func wants(_ point: CapturePoint) -> Bool { points & 1 << UInt32(point.rawValue) != 0 }
}

/// How far captures have read: the only memory that a capture process writes, and that the host reads of it. A word for each
/// slot and queue. What it says can cost packets of a capture, nothing else.
public struct CaptureReaders: ~Copyable, @unchecked Sendable {
  // Invariant: `address` points at `byteCount` mapped bytes until deinit.
  let address: UnsafeMutableRawPointer
  private let queues: Int
  public let descriptor: Int32

  static func byteCount(queues: Int) -> Int {
    (CaptureArea.slots * queues * 64 + 4095) / 4096 * 4096
  }

  public init(queues: Int) throws(MemoryError) {
    let byteCount = Self.byteCount(queues: queues)
    let made = try CaptureArea.make("martlet-capture-readers", byteCount: byteCount)
    do throws(MemoryError) {
      address = try CaptureArea.map(made, byteCount: byteCount, isWritable: true)
    } catch {
      close(made)
      throw error
    }
    descriptor = made
    self.queues = queues
  }

  /// Maps what came from another process. The descriptor is closed.
  public init(adopting descriptor: Int32, queues: Int) throws(MemoryError) {
    defer { close(descriptor) }
    let byteCount = Self.byteCount(queues: queues)
    try CaptureArea.check(descriptor, byteCount: byteCount)
    address = try CaptureArea.map(descriptor, byteCount: byteCount, isWritable: true)
    self.descriptor = -1
    self.queues = queues
  }

  deinit {
    munmap(address, Self.byteCount(queues: queues))
    if descriptor >= 0 { close(descriptor) }
  }

  /// Bytes that have been read from a ring since its capture began.
  func word(_ slot: Int, _ queue: Int) -> UnsafeMutableRawPointer {
    precondition((0..<CaptureArea.slots).contains(slot) && (0..<queues).contains(queue))
    return address + (slot * queues + queue) * 64
  }

  /// Before a capture begins.
  public func reset(slot: Int) {
    for queue in 0..<queues { relaxed_store64(word(slot, queue), 0) }
  }
}
