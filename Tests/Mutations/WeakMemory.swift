import CLinux
import PCI

/// Memory as weak as a driver may find it: a device works between a driver's stores, and sees a store before those that
/// came earlier, unless a release store or a fence stands between them. Every store of a copy of a driver comes through
/// here (Shadows.swift). One thread.
public enum WeakMemory {
  private struct Store {
    // Invariant: points at `byteCount` bytes of ring memory, which lives as long as the bench.
    var address: UnsafeMutableRawPointer
    var byteCount: Int
    var before: UInt64
    var after: UInt64
  }

  /// Lets the device work.
  public nonisolated(unsafe) static var stepDevice: () -> Void = {}
  /// Stores since the last fence, at most four.
  private nonisolated(unsafe) static var unordered: [Store] = []
  private nonisolated(unsafe) static var random: UInt64 = 1

  /// One time of sixteen, the same times in every run.
  private static var isTurn: Bool {
    random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return random >> 60 == 0
  }

  public static func store(_ value: UInt64, _ byteCount: Int, at address: UnsafeMutableRawPointer) {
    let new = Store(
      address: address, byteCount: byteCount, before: read(address, byteCount), after: value)
    // Stores to the same place keep their order.
    let isApart = unordered.allSatisfy {
      $0.address + $0.byteCount <= address || address + byteCount <= $0.address
    }
    if isApart && isTurn {
      early {
        write(new.after, byteCount, to: address)
        stepDevice()
      }
    } else {
      write(new.after, byteCount, to: address)
    }
    if unordered.count == 4 { unordered.removeFirst() }
    unordered.append(new)
  }

  public static func storeReleasing(
    _ value: UInt64, _ byteCount: Int, at address: UnsafeMutableRawPointer
  ) {
    fence()
    write(value, byteCount, to: address)
    if isTurn { stepDevice() }
  }

  public static func fence() { unordered.removeAll(keepingCapacity: true) }

  /// A write to a register does not wait for stores either.
  public static func writeRegister(_ body: () -> Void) {
    early(body)
    fence()
  }

  /// Does `body` as if the stores since the last fence had not been made yet.
  private static func early(_ body: () -> Void) {
    for store in unordered.reversed() { write(store.before, store.byteCount, to: store.address) }
    body()
    for store in unordered { write(store.after, store.byteCount, to: store.address) }
  }

  private static func read(_ address: UnsafeMutableRawPointer, _ byteCount: Int) -> UInt64 {
    switch byteCount {
    case 1: UInt64(volatile_load8(address))
    case 2: UInt64(relaxed_load16(address))
    case 4: UInt64(relaxed_load32(address))
    default: relaxed_load64(address)
    }
  }

  private static func write(_ value: UInt64, _ byteCount: Int, to address: UnsafeMutableRawPointer)
  {
    switch byteCount {
    case 1: volatile_store8(address, UInt8(value))
    case 2: relaxed_store16(address, UInt16(value))
    case 4: relaxed_store32(address, UInt32(value))
    default: relaxed_store64(address, value)
    }
  }
}

extension RegisterWindow {
  public func writeAsItIs(_ value: UInt16, at offset: Int) { write16(value, at: offset) }
  public func writeAsItIs(_ value: UInt32, at offset: Int) { write32(value, at: offset) }
}
