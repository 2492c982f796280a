import Glibc
import Virtio
import VirtioNetDevice

/// What a front-end has said of one ring.
struct FrontEndRing {
  var size = 0
  var base: UInt32 = 0
  /// In the front-end's own addresses.
  var descriptors: UInt64 = 0
  var available: UInt64 = 0
  var used: UInt64 = 0
  var hasAddresses = false
  /// The kick request has come: with a descriptor, or with word that there is none.
  var isKicked = false
  var isEnabled = false
  var isRunning = false
  var kick: Int32 = -1
  var call: Int32 = -1
  var error: Int32 = -1

  /// Takes a descriptor over in place of the one before.
  static func replace(_ place: inout Int32, with descriptor: Int32) {
    if place >= 0 { close(place) }
    place = descriptor
  }

  mutating func closeAll() {
    Self.replace(&kick, with: -1)
    Self.replace(&call, with: -1)
    Self.replace(&error, with: -1)
  }

  /// Bytes of the three parts of a ring.
  func parts(isPacked: Bool) -> [(address: UInt64, byteCount: Int)] {
    if isPacked {
      return [
        (descriptors, size * 16), (available, PackedRing.eventBytes),
        (used, PackedRing.eventBytes),
      ]
    }
    return [
      (descriptors, size * SplitRing.descriptorBytes),
      (available, SplitRing.availableBytes(size: size)), (used, SplitRing.usedBytes(size: size)),
    ]
  }
}
