import CLinux

/// Register accesses of a region that is not mapped into this process: a call for each.
///
/// C function pointers and a context, so that an access costs no reference counting.
public struct RegisterCalls: @unchecked Sendable {
  /// Reads a register: 1, 2, 4 or 8 bytes. One that cannot be read gives all ones.
  public typealias Load =
    @convention(c) (
      _ context: UnsafeMutableRawPointer, _ bar: Int32, _ offset: UInt64, _ byteCount: Int32
    ) -> UInt64
  /// Writes a register: 1, 2, 4 or 8 bytes. In order with all accesses of the function.
  public typealias Store =
    @convention(c) (
      _ context: UnsafeMutableRawPointer, _ bar: Int32, _ offset: UInt64, _ byteCount: Int32,
      _ value: UInt64
    ) -> Void

  // Invariant: `context` stays valid as long as the function that handed out the region.
  @usableFromInline let context: UnsafeMutableRawPointer
  @usableFromInline let load: Load
  @usableFromInline let store: Store

  /// - Parameters:
  ///   - context: is handed to each call; valid as long as the function that hands out the region.
  ///   - load: reads.
  ///   - store: writes.
  public init(context: UnsafeMutableRawPointer, load: @escaping Load, store: @escaping Store) {
    self.context = context
    self.load = load
    self.store = store
  }
}

/// The memory behind one BAR. Parts of it may be mapped (plain loads and stores); everything else goes by calls.
/// Valid as long as the function that opened it.
public struct RegisterRegion: @unchecked Sendable {
  /// The base address register, 0 to 5.
  public let bar: Int
  /// The region's size.
  public let byteCount: UInt64
  let calls: RegisterCalls
  let mapped: [MappedArea]

  /// A part of a region that is mapped at `address`.
  public struct MappedArea: @unchecked Sendable {
    /// Bytes from the region's start.
    public var offset: UInt64
    /// Bytes that are mapped.
    public var byteCount: UInt64
    /// The first of them, in this process.
    public var address: UnsafeMutableRawPointer
    /// - Parameters:
    ///   - offset: bytes from the region's start.
    ///   - byteCount: bytes that are mapped.
    ///   - address: the first of them, in this process.
    public init(offset: UInt64, byteCount: UInt64, address: UnsafeMutableRawPointer) {
      self.offset = offset
      self.byteCount = byteCount
      self.address = address
    }
  }

  /// - Parameters:
  ///   - bar: the base address register, 0 to 5.
  ///   - byteCount: the region's size.
  ///   - calls: reach what is not mapped.
  ///   - mapped: what is, as long as the function that hands out the region.
  public init(bar: Int, byteCount: UInt64, calls: RegisterCalls, mapped: [MappedArea] = []) {
    self.bar = bar
    self.byteCount = byteCount
    self.calls = calls
    self.mapped = mapped
  }

  /// A window onto part of the region; its bounds are checked here, once.
  /// - Parameters:
  ///   - offset: bytes from the region's start.
  ///   - byteCount: bytes of the window.
  /// - Throws: ``PCIError/outsideRegion(bar:offset:byteCount:regionByteCount:)``.
  public func window(at offset: UInt64, byteCount: UInt64) throws(PCIError) -> RegisterWindow {
    guard offset <= self.byteCount, byteCount <= self.byteCount - offset else {
      throw .outsideRegion(
        bar: bar, offset: offset, byteCount: byteCount, regionByteCount: self.byteCount)
    }
    let area = mapped.first { area in
      offset >= area.offset && offset - area.offset <= area.byteCount
        && byteCount <= area.byteCount - (offset - area.offset)
    }
    return RegisterWindow(
      calls: calls, bar: Int32(bar), base: offset, byteCount: byteCount,
      mapped: area.map { $0.address + Int(offset - $0.offset) })
  }
}

/// A bounds-checked view of registers. Accesses are little-endian, of the register's own width, in program order,
/// never merged or repeated. Outside the window: a precondition failure (a defect of the driver, not of the device).
/// Offsets are bytes from the window's start, multiples of the width. Registers of a function that is gone read as all
/// ones, and what is written to them is lost. Any thread, as far as the device allows it.
@frozen
public struct RegisterWindow: @unchecked Sendable {
  // Invariant: where `mapped` is set it points at `byteCount` mapped bytes.
  @usableFromInline let calls: RegisterCalls
  @usableFromInline let bar: Int32
  @usableFromInline let base: UInt64
  /// Bytes that the window shows.
  public let byteCount: UInt64
  @usableFromInline let mapped: UnsafeMutableRawPointer?

  @usableFromInline
  init(
    calls: RegisterCalls, bar: Int32, base: UInt64, byteCount: UInt64,
    mapped: UnsafeMutableRawPointer?
  ) {
    self.calls = calls
    self.bar = bar
    self.base = base
    self.byteCount = byteCount
    self.mapped = mapped
  }

  /// A smaller window inside this one; its bounds are checked here, once.
  /// - Parameters:
  ///   - offset: bytes from this window's start.
  ///   - byteCount: bytes of the smaller one.
  /// - Throws: ``PCIError/outsideRegion(bar:offset:byteCount:regionByteCount:)``.
  public func window(at offset: UInt64, byteCount: UInt64) throws(PCIError) -> RegisterWindow {
    guard offset <= self.byteCount, byteCount <= self.byteCount - offset else {
      throw .outsideRegion(
        bar: Int(bar), offset: base + offset, byteCount: byteCount,
        regionByteCount: base + self.byteCount)
    }
    return RegisterWindow(
      calls: calls, bar: bar, base: base + offset, byteCount: byteCount,
      mapped: mapped.map { $0 + Int(offset) })
  }

  @inlinable @inline(__always)
  func check(_ offset: Int, _ width: Int) {
    precondition(
      offset >= 0 && UInt64(width) <= byteCount && UInt64(offset) <= byteCount - UInt64(width))
  }

  // Calls are apart, so that a check of the data path can tell them from others.
  @_semantics("no_performance_analysis")
  @inline(never) @usableFromInline
  func loadElsewhere(_ offset: Int, _ width: Int32) -> UInt64 {
    calls.load(calls.context, bar, base &+ UInt64(offset), width)
  }

  @_semantics("no_performance_analysis")
  @inline(never) @usableFromInline
  func storeElsewhere(_ value: UInt64, _ offset: Int, _ width: Int32) {
    calls.store(calls.context, bar, base &+ UInt64(offset), width, value)
  }

  /// Reads a register of 8 bits.
  @inlinable public func read8(at offset: Int) -> UInt8 {
    check(offset, 1)
    if let mapped { return volatile_load8(mapped + offset) }
    return UInt8(truncatingIfNeeded: loadElsewhere(offset, 1))
  }
  /// Reads a register of 16 bits.
  @inlinable public func read16(at offset: Int) -> UInt16 {
    check(offset, 2)
    if let mapped { return volatile_load16(mapped + offset) }
    return UInt16(truncatingIfNeeded: loadElsewhere(offset, 2))
  }
  /// Reads a register of 32 bits.
  @inlinable public func read32(at offset: Int) -> UInt32 {
    check(offset, 4)
    if let mapped { return volatile_load32(mapped + offset) }
    return UInt32(truncatingIfNeeded: loadElsewhere(offset, 4))
  }
  /// Writes a register of 8 bits.
  @inlinable public func write8(_ value: UInt8, at offset: Int) {
    check(offset, 1)
    if let mapped {
      volatile_store8(mapped + offset, value)
    } else {
      storeElsewhere(UInt64(value), offset, 1)
    }
  }
  /// Writes a register of 16 bits.
  @inlinable public func write16(_ value: UInt16, at offset: Int) {
    check(offset, 2)
    if let mapped {
      volatile_store16(mapped + offset, value)
    } else {
      storeElsewhere(UInt64(value), offset, 2)
    }
  }
  /// Writes a register of 32 bits.
  @inlinable public func write32(_ value: UInt32, at offset: Int) {
    check(offset, 4)
    if let mapped {
      volatile_store32(mapped + offset, value)
    } else {
      storeElsewhere(UInt64(value), offset, 4)
    }
  }
}
