import CLinux
import Driver
import FuzzHarness
import Virtio
import VirtioNet

@testable import VirtioNetDevice

/// A driver for virtio networks, and a device with split rings that does what the input says.
let virtioNetSplit = FuzzTarget("virtio-net-split") { input in
  VirtioNetRigs.run(input, [])
}

/// The same with packed rings.
let virtioNetPacked = FuzzTarget("virtio-net-packed") { input in
  VirtioNetRigs.run(input, .packedRing)
}

/// Rings of both formats, whose memory another thread changes meanwhile.
let virtioNetRace = FuzzTarget("virtio-net-race") { input in
  var input = input
  VirtioNetRigs.run(input, input.number(UInt8.self) & 8 == 0 ? [] : .packedRing, meddles: true)
}

/// A rig for each choice of features, made when it is needed first.
private enum VirtioNetRigs {
  nonisolated(unsafe) private static var rigs: [UInt64: DriverRig<VirtioNet>] = [:]

  /// What a device adds and leaves out; the last one has two queue pairs.
  private static let variants: [(additional: VirtioFeatures, withheld: VirtioFeatures)] = [
    ([], []), (.inOrder, []), ([], .eventIndex), (.inOrder, [.mergeableBuffers, .eventIndex]),
    ([], [.indirectDescriptors, .mergeableBuffers]), ([], [.checksum, .guestChecksum, .mtu]),
    ([], [.controlQueue, .status, .macAddress]), (.inOrder, [.indirectDescriptors]),
  ]

  static func run(_ input: FuzzInput, _ format: VirtioFeatures, meddles: Bool = false) {
    var input = input
    let variant = Int(input.number(UInt8.self) & 7)
    let key = format.rawValue | UInt64(variant)
    let rig = rigs[key] ?? make(variant, format)
    rigs[key] = rig
    rig.run(&input, meddles: meddles)
  }

  private static func make(_ variant: Int, _ format: VirtioFeatures) -> DriverRig<VirtioNet> {
    // For large packets a model looks at many buffers: that is slow, and one variant after the other is enough.
    let wire = DeviceWire(carriesOffloads: [0, 1, 7].contains(variant))
    var options = VirtioNetDevice.Options()
    options.mtu = variant == 2 ? 9000 : 1500
    options.queuePairs = variant == 7 ? 2 : 1
    options.additional = variants[variant].additional.union(format)
    options.withheld = variants[variant].withheld
    let device = VirtioNetDevice(wire: wire, options: options)
    return DriverRig<VirtioNet>(
      device, VirtioMisbehaviour(device), wire: wire,
      ownVerb: { pair, segments throws(DriverError) in
        try pair.resetReceiveRing(into: &segments)
      })
  }
}

/// What a hostile virtio device writes into its rings and before its frames.
private final class VirtioMisbehaviour: Misbehaviour {
  private let device: VirtioNetDevice

  init(_ device: VirtioNetDevice) { self.device = device }

  func clearComplaints() { device.violations.clear() }

  func act(_ verb: Int, _ number: Int, _ input: inout FuzzInput) {
    // Of the first pair's two queues, or the control queue.
    let index = number & 1 == 0 ? 0 : number == 7 ? device.queues.count - 1 : 1
    guard var queue = HostileVirtqueue(device, queue: index) else { return }
    switch verb {
    case 0, 1: use(&queue, verb, number, &input)
    case 2: queue.use(length: UInt32(input.number(UInt16.self)))
    case 3: queue.use(queue.due(ahead: number >> 1), length: 100, advance: 1 + number >> 1)
    case 4: queue.use(input.number(), length: UInt32(input.number(UInt8.self)))
    case 5: queue.use(length: input.number(UInt32.self), advance: number)
    case 6:
      if !queue.isPacked { return queue.moveIndex(by: Int(Int8(bitPattern: input.number()))) }
      queue.setMarks(input.number(), at: Int(input.number(UInt8.self)))
    case 7: queue.setEvents(input.number())
    case 8:
      let word = Int(input.number(UInt8.self))
      queue.setDescriptor(word: word, queue.descriptor(word: word) ^ input.number())
    case 9:
      // The header of a buffer, after it was used and before the driver looks, or at any other time.
      guard let buffer = queue.buffer(ahead: number >> 1) else { return }
      let byte = Int(input.number(UInt8.self)) % 12
      volatile_store8(buffer + byte, input.number())
    case 10: device.fail()
    case 11:
      for _ in 0...number { queue.use(length: UInt32(number) * 30) }
    default: break
    }
  }

  /// A whole packet of one buffer or of several, with any header.
  private func use(
    _ queue: inout HostileVirtqueue, _ verb: Int, _ number: Int, _ input: inout FuzzInput
  ) {
    let buffers = verb == 0 ? 1 : 1 + number >> 1
    if let header = queue.buffer() {
      for byte in 0..<10 { volatile_store8(header + byte, input.number()) }
      volatile_store8(header + 10, UInt8(buffers))
      volatile_store8(header + 11, 0)
    }
    for _ in 0..<buffers { queue.use(length: UInt32(input.number(UInt8.self)) * 8) }
  }
}
