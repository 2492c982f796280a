import FuzzHarness
import Glibc
import VFIOUserMessages
import VhostUserMessages

/// A stream of vfio-user messages, put together as a server or client does, and each payload read as what it may be.
let vfioUserMessages = FuzzTarget("vfio-user-messages") { input in
  feed(input) { socket in
    let stream = MessageStream(descriptor: socket)
    while let message = try? stream.poll() { read(message.header.command, message.payload) }
  }
}

private func read(_ command: UInt16, _ payload: [UInt8]) {
  var reader = ByteReader(payload)
  switch VFIOUserCommand(rawValue: command) {
  case .version: checkVersion(payload)
  case .dmaMap:
    if let message = DMAMapMessage(payload) {
      require(DMAMapMessage(message.bytes) == message, "a DMA map is not what it was")
    }
  case .dmaUnmap:
    if let message = DMAUnmapMessage(payload) {
      require(DMAUnmapMessage(message.bytes) == message, "a DMA unmap is not what it was")
    }
  case .dmaRead, .dmaWrite: _ = DMAAccessMessage(&reader)
  case .regionRead, .regionWrite: _ = RegionAccessMessage(&reader)
  case .deviceInfo: _ = DeviceInfoMessage(payload)
  case .regionInfo:
    if let message = try? RegionInfoMessage(payload) {
      let reply = message.reply(within: .max)
      require(
        (try? RegionInfoMessage(reply))?.sparseAreas == message.sparseAreas,
        "a region's areas are not what they were")
      _ = message.reply(within: message.argumentSize)
    }
  case .interruptInfo: _ = InterruptInfoMessage(payload)
  case .setInterrupts:
    if let message = SetInterruptsMessage(payload) {
      require(message.booleans.count <= payload.count, "more interrupts than bytes")
    }
  default: break
  }
}

/// The capabilities of a version message, and the JSON that they are in.
let versionMessage = FuzzTarget("version-message") { input in checkVersion(input.bytes) }

private func checkVersion(_ payload: [UInt8]) {
  if let message = try? VersionMessage(payload) {
    require((try? VersionMessage(message.bytes)) == message, "a version is not what it was")
  }
}

/// A stream of vhost-user messages, and each payload read as what it may be.
let vhostUserMessages = FuzzTarget("vhost-user-messages") { input in
  feed(input) { socket in
    let stream = VhostUserStream(descriptor: socket, closes: true)
    while let message = try? stream.poll() {
      let payload = message.payload
      if let table = VhostUserMemoryTable(payload) {
        require(VhostUserMemoryTable(table.bytes) == table, "a memory table is not what it was")
      }
      if let read = VhostUserConfiguration(payload) {
        require(VhostUserConfiguration(read.bytes) == read, "a configuration is not what it was")
      }
      if let addresses = VringAddresses(payload) {
        require(VringAddresses(addresses.bytes) == addresses, "addresses are not what they were")
      }
      if let state = VringState(payload) {
        require(VringState(state.bytes) == state, "a ring's state is not what it was")
      }
      if let number = VhostUserNumber(payload) {
        require(VhostUserNumber(number.bytes) == number, "a number is not what it was")
      }
      _ = message.request?.name
    }
  }
}

/// The input's bytes as a peer would send them, all at once, and then nothing more.
private func feed(_ input: FuzzInput, _ body: (Int32) -> Void) {
  var ends: [Int32] = [-1, -1]
  require(
    socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0, "no pair of sockets")
  let bytes = input.bytes
  _ = bytes.withUnsafeBytes { send(ends[0], $0.baseAddress, $0.count, Int32(MSG_DONTWAIT)) }
  close(ends[0])
  body(ends[1])
}
