import CLinux
import Glibc
import PCI

/// The eventfds by which a driver tells a back-end that there is something in a ring (kicks). Made before a process is
/// confined, which cannot make any later.
public final class VhostUserDoorbells {
  // Invariant: `places` holds the ring count, then an eventfd for each ring, until deinit.
  private let places: UnsafeMutablePointer<Int32>
  let region: RegisterRegion

  /// - Parameter queuePairs: most that are going to be used, each with two rings.
  public init(queuePairs: Int) {
    let rings = 2 * queuePairs
    places = .allocate(capacity: 1 + rings)
    places.initialize(to: Int32(rings))
    for ring in 0..<rings {
      (places + 1 + ring).initialize(to: eventfd(0, Int32(EFD_NONBLOCK | EFD_CLOEXEC)))
    }
    region = RegisterRegion(
      bar: 0, byteCount: 2,
      calls: RegisterCalls(
        context: places, load: { _, _, _, _ in .max },
        store: { context, _, _, _, ring in
          let places = context.assumingMemoryBound(to: Int32.self)
          guard ring < UInt64(places[0]) else { return }
          var one: UInt64 = 1
          // One that is full is as good as rung.
          _ = write(places[1 + Int(ring)], &one, 8)
        }))
  }

  deinit {
    for ring in 0..<rings { close(self[ring]) }
    places.deallocate()
  }

  var rings: Int { Int(places[0]) }
  subscript(ring: Int) -> Int32 {
    precondition(ring >= 0 && ring < rings)
    return places[1 + ring]
  }
}
