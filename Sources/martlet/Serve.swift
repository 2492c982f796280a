import ArgumentParser
import CLinux
import Channel
import E1000eDevice
import EmulatedPCI
import Glibc
import Supervisor
import VFIOUserServer
import VhostUserServer
import Virtio
import VirtioNetDevice
import Wire

/// `martlet serve`: an emulated device for any vfio-user client, or for any vhost-user front-end.
struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Serve an emulated device over vfio-user or vhost-user, to one client after the other.",
    discussion: """
      Prints "ready" once clients can connect. SIGINT or SIGTERM ends it: it removes the socket and prints what the \
      device has seen.
      """)

  @Argument(help: "The device: virtio-net, or e1000e (an Intel 82574L).")
  var device: RunPlan.EmulatedModel

  @Option(help: "Path of the UNIX socket to listen on for vfio-user, at most 107 bytes.")
  var socket: String?

  @Option(
    help: ArgumentHelp(
      "In place of --socket: be a vhost-user back-end, for virtio-net only.", valueName: "path"))
  var vhostUser: String?

  @Option(
    help: ArgumentHelp(
      "tap:NAME, udp:LOCAL,REMOTE (one datagram a frame, loopback addresses only), pcap:FILE (what the device sends), pcap:FILE,INPUT (and it receives the frames of INPUT), or none.",
      valueName: "wire"))
  var wire: String?

  @Option(help: "MAC address of the device.") var mac = "52:54:00:12:34:56"
  @Option(help: "Queue pairs of virtio-net, 1 to 16.") var queues = 1
  @Option(help: "MTU of virtio-net in bytes, 68 to 65535.") var mtu = 1500

  @Option(
    help: "poll: the device never sleeps, and needs no notification. Otherwise it sleeps when idle."
  )
  var mode = PollMode.adaptive

  @Option(
    name: .customLong("listen-fd"), help: "An inherited socket that listens, in place of --socket.")
  var listenDescriptor: Int32?
  @Option(name: .customLong("tap-fd"), help: "An inherited TAP descriptor, in place of --wire.")
  var tapDescriptor: Int32?

  @Option(
    name: .customLong("counters-fd"),
    help: "An inherited counter page, kept up to date with what the device sees.")
  var counterDescriptor: Int32?

  @Flag(help: "Offer packed virtqueues.") var packed = false
  @Flag(help: "Use buffers in the order in which they came, and say so.") var inOrder = false
  @Flag(name: .customLong("no-checksum"), help: "Offer no checksum and no segmentation offload.")
  var withoutChecksum = false
  @Flag(name: .customLong("no-segmentation"), help: "Offer no segmentation offload.")
  var withoutSegmentation = false
  @Flag(name: .customLong("no-mergeable-buffers")) var withoutMergeableBuffers = false
  @Flag(name: .customLong("no-event-index")) var withoutEventIndex = false
  @Flag(name: .customLong("no-indirect-descriptors")) var withoutIndirectDescriptors = false
  @Flag(name: .customLong("no-control-queue")) var withoutControlQueue = false
  @Flag(name: .customLong("no-access-platform"), help: "For clients without an IOMMU.")
  var withoutAccessPlatform = false

  @Option(
    help: ArgumentHelp(
      "Do wrong now and then, to see what a driver makes of it: needs-reset, or a way to complete a received frame, such as idOutOfRange (another word lists them).",
      valueName: "way"))
  var misbehave: String?
  @Option(help: ArgumentHelp("Frames from one such time to the next.", valueName: "frames"))
  var every: UInt64 = 5000

  @Flag(help: "Print what the device has seen as JSON.") var json = false

  func run() throws {
    do {
      try serve()
    } catch let failure as ServeFailure {
      writeLine("martlet serve: \(failure.text)", to: 2)
      throw ExitCode(failure.code)
    }
  }

  private func serve() throws {
    let address = try parseAddress(mac)
    guard (1...16).contains(queues) else {
      throw ServeFailure.usage("--queues takes 1 to 16, not \(queues)")
    }
    guard (68...65535).contains(mtu) else {
      throw ServeFailure.usage("--mtu takes 68 to 65535, not \(mtu)")
    }
    if device == .e1000e && (withheld != [] || packed || inOrder) {
      throw ServeFailure.usage("features are added to and left out of virtio-net only")
    }
    if vhostUser != nil {
      guard device == .virtioNet else {
        throw ServeFailure.usage("--vhost-user is for virtio-net: an e1000e is no virtio device")
      }
      guard socket == nil else {
        throw ServeFailure.usage("--socket and --vhost-user exclude each other")
      }
    }
    let wire = try openWire()
    let stop = linux_termination_descriptor()
    guard stop >= 0 else { throw ServeFailure.system("signalfd", -stop) }
    defer { close(stop) }
    let path = vhostUser ?? socket
    let listening = try ListeningSocket(path: path, inherited: listenDescriptor)
    let ready = "ready \(path ?? "descriptor \(listening.descriptor)")"
    if vhostUser != nil {
      return try serveBackEnd(wire, virtioOptions(address), listening, stop, ready)
    }
    let model = makeModel(wire, address)
    let server = VFIOUserServer(model: model, listening: listening.descriptor)
    writeLine(ready, to: 1)
    let counters = try counterDescriptor.map { try DeviceCounterPage($0) }
    var misbehaviour = try makeMisbehaviour(model)
    let error = server.run(
      model, wire: wire.descriptor, stop: stop,
      idleNanoseconds: mode == .poll ? 1 << 62 : 30_000
    ) {
      counters?.publish(model)
      misbehaviour?.step(model)
    }
    counters?.publish(model)
    server.end()
    let report = ServeReport(
      numbers: [
        ("clients", server.clients), ("commands", server.commands),
        ("dma_messages", server.messageAccesses),
      ], refusals: server.refusals.named, model: model)
    writeLine(json ? report.json : report.text, to: 1)
    if error != 0 { throw ServeFailure.system("epoll", error) }
  }

  private func serveBackEnd(
    _ wire: any FrameWire, _ options: VirtioNetDevice.Options,
    _ listening: borrowing ListeningSocket,
    _ stop: Int32, _ ready: String
  ) throws(ServeFailure) {
    var options = options
    options.withheld.formUnion(VhostUserServer.notCarried)
    let model = VirtioNetDevice(wire: wire, options: options)
    let server = VhostUserServer(model: model, listening: listening.descriptor)
    let counters = try counterDescriptor.map { (page) throws(ServeFailure) in
      try DeviceCounterPage(page)
    }
    var misbehaviour = try makeMisbehaviour(model)
    writeLine(ready, to: 1)
    let error = server.run(wire: wire.descriptor, stop: stop) {
      counters?.publish(model)
      misbehaviour?.step(model)
    }
    counters?.publish(model)
    server.end()
    let report = ServeReport(
      numbers: [("front_ends", server.frontEnds), ("requests", server.requests)],
      refusals: server.refusals.named, model: model)
    writeLine(json ? report.json : report.text, to: 1)
    if error != 0 { throw ServeFailure.system("poll", error) }
  }

  private func makeMisbehaviour(_ model: any NetworkModel) throws(ServeFailure) -> Misbehaviour? {
    guard let misbehave else { return nil }
    guard every > 0 else { throw .usage("--every takes 1 frame and more") }
    return try Misbehaviour(misbehave, every: every, model: model)
  }

  private func virtioOptions(_ address: [UInt8]) -> VirtioNetDevice.Options {
    var options = VirtioNetDevice.Options()
    options.macAddress = address
    options.queuePairs = queues
    options.mtu = UInt16(mtu)
    options.withheld = withheld
    if packed { options.additional.insert(.packedRing) }
    if inOrder { options.additional.insert(.inOrder) }
    return options
  }

  private func makeModel(_ wire: any FrameWire, _ address: [UInt8]) -> any NetworkModel {
    switch device {
    case .virtioNet:
      return VirtioNetDevice(wire: wire, options: virtioOptions(address))
    case .e1000e:
      // An 82574L has two queues, and its driver says how long frames are.
      var options = E1000eDevice.Options()
      options.macAddress = address
      return E1000eDevice(wire: wire, options: options)
    }
  }

  private var withheld: VirtioFeatures {
    var features: VirtioFeatures = []
    let segmentation: VirtioFeatures = [.hostTSO4, .hostTSO6, .guestTSO4, .guestTSO6]
    if withoutChecksum {
      features.formUnion([.checksum, .guestChecksum])
      features.formUnion(segmentation)
    }
    if withoutSegmentation { features.formUnion(segmentation) }
    if withoutMergeableBuffers { features.insert(.mergeableBuffers) }
    if withoutEventIndex { features.insert(.eventIndex) }
    if withoutIndirectDescriptors { features.insert(.indirectDescriptors) }
    if withoutControlQueue { features.insert(.controlQueue) }
    if withoutAccessPlatform { features.insert(.accessPlatform) }
    return features
  }

  private func parseAddress(_ text: String) throws(ServeFailure) -> [UInt8] {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let bytes = parts.compactMap { $0.count == 2 ? UInt8($0, radix: 16) : nil }
    guard parts.count == 6, bytes.count == 6 else {
      throw .usage("\(text) is no MAC address; write six bytes, such as 52:54:00:12:34:56")
    }
    guard bytes[0] & 1 == 0, bytes.contains(where: { $0 != 0 }) else {
      throw .usage(
        "\(text) is a group address or zero; a device needs one of its own, such as 52:54:00:12:34:56"
      )
    }
    return bytes
  }

  private func openWire() throws(ServeFailure) -> any FrameWire {
    do throws(WireError) {
      if let tapDescriptor {
        guard wire == nil else { throw .malformed("--wire and --tap-fd exclude each other") }
        return try TapWire(adopting: tapDescriptor)
      }
      guard let wire else {
        throw .malformed(
          "say where the wire ends: --wire tap:NAME, udp:LOCAL,REMOTE, pcap:FILE or none")
      }
      if wire == "none" { return NullWire() }
      let parts = wire.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      let rest = parts.count == 2 ? String(parts[1]) : ""
      let names = rest.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
      switch parts[0] {
      case "tap" where !rest.isEmpty:
        guard rest.utf8.count < 16 else {
          throw .malformed("\(rest) is too long for an interface name: 15 bytes at most")
        }
        return try TapWire(name: rest)
      case "udp" where names.count == 2:
        return try DatagramWire.udp(local: names[0], remote: names[1])
      case "pcap" where !rest.isEmpty && names.count <= 2:
        return try CaptureWire(output: names[0], input: names.count == 2 ? names[1] : nil)
      default:
        throw .malformed("\(wire) is no wire; use tap:NAME, udp:LOCAL,REMOTE, pcap:FILE or none")
      }
    } catch {
      throw .wire(error)
    }
  }
}
