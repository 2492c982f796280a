import CLinux
import EmulatedPCI
import FuzzHarness
import Glibc
import Memory
import PCI
import VFIO
import VFIOUserMessages
import VFIOUserServer
import VhostUser
import VhostUserMessages
import VhostUserServer
import Virtio
import VirtioNetDevice
import Wire

/// A client of a served device that says whatever it likes, with descriptors of all kinds, and takes its memory away while
/// the device uses it. Afterwards the server is as it was, and serves.
let vfioUserServer = FuzzTarget("vfio-user-server") { input in
  var input = input
  let before = lowestDescriptor()
  do {
    let peer = Peer()
    let model = VirtioNetDevice(wire: NullWire())
    let server = VFIOUserServer(model: model, listening: peer.listener)
    server.service()
    if input.number(UInt8.self) & 15 != 0 {
      peer.send(vfioUser(.version, VersionMessage(major: 0, minor: 1, capabilities: .init()).bytes))
      server.service()
    }
    while !input.isEmpty {
      let step = input.number(UInt8.self)
      switch step & 7 {
      case 0: peer.send(input.bytes(Int(input.number(UInt8.self)) & 63), from: &input)
      case 1: peer.disturbMemory(&input)
      case 2: for _ in 0..<4 where model.step() {}
      default:
        let command = VFIOUserCommand(rawValue: UInt16(step >> 3 & 15)) ?? .deviceReset
        peer.send(vfioUser(command, input.bytes(Int(input.number(UInt8.self)) & 63)), from: &input)
      }
      // It never waits for an answer about memory that came without a descriptor.
      if model.iommu.messages != nil && step & 7 == 2 { peer.stopSending() }
      server.service()
      peer.drain()
    }
    server.end()
    require(model.iommu.mappingCount == 0, "memory of a client that has gone")
    require(server.refusals.total <= 4096, "more refusals than bytes")
  }
  require(lowestDescriptor() == before, "descriptors of a client that has gone")
}

/// The same with a front-end of vhost-user.
let vhostUserServer = FuzzTarget("vhost-user-server") { input in
  var input = input
  let before = lowestDescriptor()
  do {
    let peer = Peer()
    var options = VirtioNetDevice.Options()
    options.withheld = VhostUserServer.notCarried
    let model = VirtioNetDevice(wire: NullWire(), options: options)
    let server = VhostUserServer(model: model, listening: peer.listener)
    server.service()
    if input.number(UInt8.self) & 15 != 0 {
      peer.send(vhostUser(.setProtocolFeatures, VhostUserNumber(1 << 3).bytes))
      peer.send(
        vhostUser(.setFeatures, VhostUserNumber(1 << 32 | VhostFeature.protocolFeatures).bytes))
    }
    while !input.isEmpty {
      let step = input.number(UInt8.self)
      switch step & 7 {
      case 0: peer.send(input.bytes(Int(input.number(UInt8.self)) & 63), from: &input)
      case 1: peer.disturbMemory(&input)
      case 2: for _ in 0..<4 where model.step() {}
      case 3: peer.send(VhostUserScript.memoryTable(&input), from: &input)
      default:
        let all = VhostUserRequest.allCases
        let request = all[Int(step >> 3) % all.count]
        peer.send(vhostUser(request, input.bytes(Int(input.number(UInt8.self)) & 63)), from: &input)
      }
      server.service()
      peer.drain()
    }
    server.end()
    require(model.iommu.mappingCount == 0, "memory of a front-end that has gone")
  }
  require(lowestDescriptor() == before, "descriptors of a front-end that has gone")
}

/// A server that answers whatever it likes; what it gives to be mapped shrinks under the client.
let vfioUserClient = FuzzTarget("vfio-user-client") { input in
  var input = input
  let before = lowestDescriptor()
  do {
    let peer = Peer(isServer: true)
    // Each answer is there before it is asked for.
    let isAccess = input.number(UInt8.self) & 3 == 0
    var identifier: UInt16 = isAccess ? 0x8000 : 0
    while !input.isEmpty {
      let kind = input.number(UInt8.self)
      identifier = identifier & 0x8000 | (identifier &+ 1) & 0x7fff
      let payload = input.bytes(Int(input.number(UInt8.self)) & 127)
      var writer = ByteWriter()
      MessageHeader(
        identifier: kind & 15 == 15 ? identifier &+ 1 : identifier, command: UInt16(kind >> 4),
        size: UInt32(16 + payload.count),
        flags: kind & 15 == 14 ? [.reply, .error] : kind & 15 == 13 ? [] : .reply,
        errno: kind & 15 == 14 ? 22 : 0
      ).write(to: &writer)
      writer.write(payload)
      peer.send(writer.bytes, from: &input)
    }
    peer.stopSending()
    if isAccess {
      let access = try? VFIOUserAccess(socket: dup(peer.client), name: "fuzz", timeout: 1)
      try? access?.quiesce()
    } else if let function = try? VFIOUserFunction(negotiated: peer.client, timeout: 1) {
      drive(function, peer)
    }
  }
  require(lowestDescriptor() == before, "descriptors of a server that has gone")
}

private func drive(_ function: VFIOUserFunction, _ peer: borrowing Peer) {
  _ = try? function.capabilities()
  if let interrupts = try? function.interrupts, interrupts.vectors > 0 {
    try? function.enableInterrupts(interrupts.kind, eventfds: [-1])
  }
  for bar in 0..<6 {
    guard let region = try? function.openRegion(bar: bar), region.byteCount >= 8,
      let window = try? region.window(at: 0, byteCount: min(region.byteCount & ~7, 1 << 20))
    else { continue }
    _ = ftruncate(peer.memory, 0)
    window.write32(1, at: 0)
    _ = window.read32(at: 0)
  }
  try? function.serveRequests()
  try? function.reset()
}

/// A back-end that answers whatever it likes.
let vhostUserClient = FuzzTarget("vhost-user-client") { input in
  var input = input
  let before = lowestDescriptor()
  do {
    let peer = Peer(isServer: true)
    while !input.isEmpty {
      let kind = input.number(UInt8.self)
      let all = VhostUserRequest.allCases
      let payload = input.bytes(Int(input.number(UInt8.self)) & 63)
      var writer = ByteWriter()
      writer.write32(all[Int(kind) % all.count].rawValue)
      writer.write32(kind == 255 ? 1 : 5)
      writer.write32(UInt32(payload.count))
      writer.write(payload)
      peer.send(writer.bytes, from: &input)
    }
    peer.stopSending()
    if let function = try? VhostUserFunction(negotiated: peer.client, timeout: 1) {
      _ = try? function.makeTransport()
    }
  }
  require(lowestDescriptor() == before, "descriptors of a back-end that has gone")
}

// MARK: What a peer says

private func vfioUser(_ command: VFIOUserCommand, _ payload: [UInt8]) -> [UInt8] {
  var writer = ByteWriter()
  MessageHeader(identifier: 7, command: command.rawValue, size: UInt32(16 + payload.count))
    .write(to: &writer)
  writer.write(payload)
  return writer.bytes
}

private func vhostUser(_ request: VhostUserRequest, _ payload: [UInt8]) -> [UInt8] {
  VhostUserScript.message(request.rawValue, payload)
}

private enum VhostUserScript {
  static func message(_ request: UInt32, _ payload: [UInt8]) -> [UInt8] {
    var writer = ByteWriter()
    writer.write32(request)
    writer.write32(1 | 8)
    writer.write32(UInt32(payload.count))
    writer.write(payload)
    return writer.bytes
  }

  /// One region, which may fit its memory.
  static func memoryTable(_ input: inout FuzzInput) -> [UInt8] {
    let table = VhostUserMemoryTable(regions: [
      VhostUserRegion(
        guestAddress: UInt64(input.number(UInt16.self)) << 12,
        byteCount: UInt64(input.number(UInt8.self)) << 12, userAddress: 1 << 32,
        offset: UInt64(input.number(UInt8.self)) << 10)
    ])
    return message(VhostUserRequest.setMemoryTable.rawValue, table.bytes)
  }
}

/// The hostile end of a connection, and what it has to give.
private struct Peer: ~Copyable {
  private(set) var listener: Int32 = -1
  private(set) var client: Int32 = -1
  private let own: Int32
  let memory = linux_memfd_create("peer", LINUX_MFD_CLOEXEC | LINUX_MFD_ALLOW_SEALING)
  private let event = eventfd(0, Int32(EFD_NONBLOCK))

  /// - Parameter isServer: the other end of a pair, instead of a client of a listener.
  init(isServer: Bool = false) {
    if isServer {
      var ends: [Int32] = [-1, -1]
      let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
      require(socketpair(AF_UNIX, kind, 0, &ends) == 0, "no pair of sockets")
      (client, own) = (ends[0], ends[1])
    } else {
      require(linux_connected_listener(&listener, &client) == 0, "no listener")
      own = client
    }
    ftruncate(memory, 1 << 20)
  }

  deinit {
    for descriptor in [listener, client, memory, event] where descriptor >= 0 { close(descriptor) }
    if own != client { close(own) }
  }

  func send(_ bytes: [UInt8]) {
    _ = linux_send_descriptors(own, bytes, bytes.count, nil, 0, Int32(MSG_DONTWAIT))
  }

  /// With descriptors as the input says.
  func send(_ bytes: [UInt8], from input: inout FuzzInput) {
    let choice = input.number(UInt8.self)
    let kinds: [[Int32]] = [
      [], [memory], [event], [own], [memory, memory], [event, event, event], [client],
      [Int32](repeating: event, count: 20),
    ]
    // What nobody can truncate any more, or may write to.
    if choice & 0xf0 == 0xf0 {
      _ = linux_fcntl(memory, LINUX_F_ADD_SEALS, Int(LINUX_F_SEAL_SHRINK))
    }
    let descriptors = kinds[Int(choice & 7)]
    guard !bytes.isEmpty else { return }
    _ = linux_send_descriptors(
      own, bytes, bytes.count, descriptors, Int32(descriptors.count), Int32(MSG_DONTWAIT))
  }

  /// Memory that shrinks, has a hole, or gets other contents.
  func disturbMemory(_ input: inout FuzzInput) {
    let how = input.number(UInt8.self)
    let place = Int(input.number(UInt16.self)) << 4
    switch how & 3 {
    case 0: ftruncate(memory, place)
    case 1: ftruncate(memory, 1 << 20)
    case 2: _ = linux_punch_hole(memory, place & ~4095, 1 << 16)
    default:
      let bytes = input.bytes(Int(how >> 2))
      _ = pwrite(memory, bytes, bytes.count, off_t(place))
    }
  }

  func stopSending() { shutdown(own, Int32(SHUT_WR)) }

  /// What it was told, and does not care for.
  func drain() {
    withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 8) { buffer in
      while recv(own, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT)) > 0 {}
    }
  }
}

/// The number that the next descriptor would get: the same as before where none was left open.
private func lowestDescriptor() -> Int32 {
  let probe = dup(2)
  close(probe)
  return probe
}
