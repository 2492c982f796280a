import CLinux
import EmulatedPCI
import Glibc
import VFIOUserMessages
import VFIOUserServer
import VhostUserMessages
import Virtio
import VirtioNetDevice

/// One front-end of a served device, from its connection to its end. What it gave (memory, eventfds) goes with it.
///
/// A request that makes no sense is counted and not done. Where the front-end asked for an acknowledgement it is told;
/// elsewhere it could not learn of it, and the connection ends.
final class FrontEndSession {
  /// Nanoseconds that a front-end has to read an answer, and to say its first word.
  private static let patience: UInt64 = 2_000_000_000
  private static let offeredProtocol: VhostUserProtocolFeatures = [
    .multiqueue, .replyAcknowledge, .configuration, .status,
  ]

  let stream: VhostUserStream
  private let model: VirtioNetDevice
  let memory: DMATable
  private var regions: [VhostUserRegion] = []
  private var protocolFeatures: VhostUserProtocolFeatures = []
  /// Whether rings start disabled (VHOST_USER_F_PROTOCOL_FEATURES was accepted).
  private var enablesOneByOne = false
  private var hasFeatures = false
  private var status: UInt8 = 0
  private var rings: [FrontEndRing]
  let kicks = KickSet()
  private(set) var requests: UInt64 = 0
  private let start = monotonic_nanoseconds()

  init(descriptor: Int32, model: VirtioNetDevice) {
    stream = VhostUserStream(descriptor: descriptor, closes: true)
    self.model = model
    memory = DMATable(model.iommu)
    rings = Array(repeating: FrontEndRing(), count: 2 * model.queuePairCount)
    // A back-end has no bus: what it may reach is the memory table.
    model.iommu.isBusMaster = true
  }

  /// Stops all rings and gives back what the front-end gave.
  func end() {
    for ring in rings.indices { stop(ring) }
    model.reset()
    model.interrupts.disconnectAll()
    for ring in rings.indices { rings[ring].closeAll() }
    memory.removeAll()
  }

  /// Why a front-end has to go.
  enum End: Error {
    case left
    case refused(FrontEndRefusals.Reason)
  }

  /// Works off what the front-end has sent, up to `limit` messages.
  /// - Returns: how many there were.
  func service(limit: Int, _ refusals: inout FrontEndRefusals) throws(End) -> Int {
    for done in 0..<limit {
      let next: VhostUserMessage?
      do {
        next = try stream.poll()
      } catch {
        throw error == .closed ? .left : .refused(.malformedMessage)
      }
      guard var message = next else {
        if isSilent && monotonic_nanoseconds() - start > Self.patience {
          throw .refused(.silentFrontEnd)
        }
        return done
      }
      requests += 1
      guard !message.header.isReply else { throw .refused(.malformedMessage) }
      try handle(&message, &refusals)
    }
    return limit
  }

  /// Nothing has come yet: the device must be looked at again in time.
  var isSilent: Bool { requests == 0 }

  private func handle(
    _ message: inout VhostUserMessage, _ refusals: inout FrontEndRefusals
  ) throws(End) {
    let header = message.header
    let refusal: FrontEndRefusals.Reason?
    if let request = message.request {
      if try answer(request, message.payload) {
        if message.descriptors.sent > 0 { refusals.count(.badDescriptors) }
        return
      }
      refusal = perform(request, message.payload, &message.descriptors)
    } else {
      refusal = .unknownRequest
    }
    if let refusal { refusals.count(refusal) }
    if header.needsReply && protocolFeatures.contains(.replyAcknowledge) {
      try reply(header.request, VhostUserNumber(refusal == nil ? 0 : 1).bytes)
    } else if refusal != nil {
      throw .left
    }
  }

  private func reply(_ request: UInt32, _ payload: [UInt8]) throws(End) {
    do {
      try stream.send(
        VhostUserHeader(request: request, isReply: true, size: payload.count), payload,
        deadline: monotonic_nanoseconds() + Self.patience)
    } catch {
      throw error == .timeout ? .refused(.blockedFrontEnd) : .left
    }
  }

  /// Requests that have an answer of their own.
  /// - Returns: false where the request is none of them.
  private func answer(_ request: VhostUserRequest, _ payload: [UInt8]) throws(End) -> Bool {
    switch request {
    case .getFeatures: try reply(request.rawValue, VhostUserNumber(offered).bytes)
    case .getProtocolFeatures:
      try reply(request.rawValue, VhostUserNumber(Self.offeredProtocol.rawValue).bytes)
    case .getQueueCount:
      try reply(request.rawValue, VhostUserNumber(UInt64(model.queuePairCount)).bytes)
    case .getStatus:
      let needsReset = model.status.intersection(.needsReset).rawValue
      try reply(request.rawValue, VhostUserNumber(UInt64(status | needsReset)).bytes)
    case .getVringBase:
      guard let state = VringState(payload), Int(state.ring) < rings.count else {
        throw .refused(.badRing)
      }
      let ring = Int(state.ring)
      stop(ring)
      rings[ring].isKicked = false
      replaceKick(ring, with: -1)
      try reply(
        request.rawValue, VringState(ring: ring, value: rings[ring].base).bytes)
    case .getConfiguration:
      guard let question = VhostUserConfiguration(payload) else { throw .refused(.badPayload) }
      let all = model.configurationBytes
      let (from, count) = (Int(question.offset), question.data.count)
      // An empty answer says that there is no such part.
      guard from <= all.count, count <= all.count - from else {
        try reply(request.rawValue, [])
        return true
      }
      let part = VhostUserConfiguration(
        offset: question.offset, data: Array(all[from..<from + count]))
      try reply(request.rawValue, part.bytes)
    default: return false
    }
    return true
  }

  /// All that the device has and vhost-user can carry. MQ is the server's: the model has it with its commands only.
  private var offered: UInt64 {
    var features = model.offered
    if model.queuePairCount > 1 { features.insert(.multiqueue) }
    return features.rawValue | VhostFeature.protocolFeatures
  }

  /// Requests that have none.
  /// - Returns: why it was not done, or nil.
  private func perform(
    _ request: VhostUserRequest, _ payload: [UInt8], _ descriptors: inout ReceivedDescriptors
  ) -> FrontEndRefusals.Reason? {
    if !descriptors.areComplete { return .lostDescriptors }
    switch request {
    case .setMemoryTable: return setMemory(payload, &descriptors)
    case .setVringKick, .setVringCall, .setVringError:
      return setEvent(request, payload, &descriptors)
    default: break
    }
    if descriptors.sent > 0 { return .badDescriptors }
    switch request {
    case .setOwner, .resetOwner: return payload.isEmpty ? nil : .badPayload
    case .setFeatures, .setProtocolFeatures, .setStatus:
      guard let number = VhostUserNumber(payload) else { return .badPayload }
      return set(request, number.value)
    case .setVringSize, .setVringBase, .setVringEnable:
      guard let state = VringState(payload) else { return .badPayload }
      guard Int(state.ring) < rings.count else { return .badRing }
      return set(request, Int(state.ring), state.value)
    case .setVringAddresses:
      guard let addresses = VringAddresses(payload) else { return .badPayload }
      guard Int(addresses.ring) < rings.count else { return .badRing }
      let ring = Int(addresses.ring)
      if rings[ring].isRunning { return .badRing }
      rings[ring].descriptors = addresses.descriptors
      rings[ring].available = addresses.available
      rings[ring].used = addresses.used
      rings[ring].hasAddresses = true
      return startWhatCan()
    default: return .unknownRequest
    }
  }

  private func set(_ request: VhostUserRequest, _ value: UInt64) -> FrontEndRefusals.Reason? {
    switch request {
    case .setFeatures:
      let chosen = VirtioFeatures(rawValue: value & ~VhostFeature.protocolFeatures)
      if rings.contains(where: \.isRunning) || value & ~offered != 0 { return .badFeatures }
      guard model.accept(chosen.subtracting(.multiqueue)) else { return .badFeatures }
      enablesOneByOne = value & VhostFeature.protocolFeatures != 0
      hasFeatures = true
      return nil
    case .setProtocolFeatures:
      let chosen = VhostUserProtocolFeatures(rawValue: value)
      guard Self.offeredProtocol.isSuperset(of: chosen) else { return .badFeatures }
      protocolFeatures = chosen
      return nil
    default:
      guard value <= 0xff else { return .badPayload }
      status = UInt8(value)
      if VirtioStatus(rawValue: status).contains(.driverOK) { return startWhatCan() }
      for ring in rings.indices { stop(ring) }
      return nil
    }
  }

  private func set(
    _ request: VhostUserRequest, _ ring: Int, _ value: UInt32
  ) -> FrontEndRefusals.Reason? {
    switch request {
    case .setVringSize:
      guard !rings[ring].isRunning, value > 0, value <= VirtioNetDevice.maximumRingSize,
        value & (value - 1) == 0 || usesPackedRings
      else { return .badRing }
      rings[ring].size = Int(value)
    case .setVringBase:
      guard !rings[ring].isRunning, value <= 0xffff || usesPackedRings else { return .badRing }
      rings[ring].base = value
    default:
      guard value <= 1 else { return .badPayload }
      rings[ring].isEnabled = value == 1
      if value == 0 { stop(ring) }
      return startWhatCan()
    }
    return nil
  }

  private func setEvent(
    _ request: VhostUserRequest, _ payload: [UInt8], _ descriptors: inout ReceivedDescriptors
  ) -> FrontEndRefusals.Reason? {
    guard let number = VhostUserNumber(payload), number.value & ~0x1ff == 0 else {
      return .badPayload
    }
    let ring = Int(number.value & 0xff)
    guard ring < rings.count else { return .badRing }
    let hasDescriptor = number.value & VhostUserNumber.noDescriptor == 0
    guard descriptors.sent == (hasDescriptor ? 1 : 0) else { return .badDescriptors }
    let descriptor = hasDescriptor ? descriptors.take(0) : -1
    switch request {
    case .setVringKick:
      replaceKick(ring, with: descriptor)
      if descriptor >= 0 && !kicks.add(descriptor) {
        replaceKick(ring, with: -1)
        return .badDescriptors
      }
      rings[ring].isKicked = true
      return startWhatCan()
    case .setVringCall:
      model.interrupts.connect(ring, descriptor)
      FrontEndRing.replace(&rings[ring].call, with: descriptor)
    default: FrontEndRing.replace(&rings[ring].error, with: descriptor)
    }
    return nil
  }

  private func replaceKick(_ ring: Int, with descriptor: Int32) {
    kicks.remove(rings[ring].kick)
    FrontEndRing.replace(&rings[ring].kick, with: descriptor)
  }

  private func setMemory(
    _ payload: [UInt8], _ descriptors: inout ReceivedDescriptors
  ) -> FrontEndRefusals.Reason? {
    guard let table = VhostUserMemoryTable(payload) else { return .badPayload }
    guard descriptors.sent == table.regions.count else { return .badDescriptors }
    for ring in rings.indices { stop(ring) }
    memory.removeAll()
    regions = []
    for (index, region) in table.regions.enumerated() {
      let map = DMAMapMessage(
        flags: DMAMapMessage.readable | DMAMapMessage.writable, offset: region.offset,
        address: region.guestAddress, size: region.byteCount)
      guard !region.userAddress.addingReportingOverflow(region.byteCount).overflow,
        memory.add(map, descriptor: descriptors.peek(index)) == 0
      else {
        memory.removeAll()
        regions = []
        return .badMemory
      }
      regions.append(region)
    }
    return startWhatCan()
  }

  // MARK: Rings

  /// Starts every ring of which all is known and that may run.
  private func startWhatCan() -> FrontEndRefusals.Reason? {
    guard hasFeatures else { return nil }
    if protocolFeatures.contains(.status),
      !VirtioStatus(rawValue: status).contains(.driverOK)
    {
      return nil
    }
    var refusal: FrontEndRefusals.Reason?
    for ring in rings.indices {
      let state = rings[ring]
      guard !state.isRunning, state.isKicked, state.hasAddresses, state.size > 0,
        state.isEnabled || !enablesOneByOne, !regions.isEmpty
      else { continue }
      let parts = state.parts(isPacked: usesPackedRings).compactMap {
        translate($0.address, $0.byteCount)
      }
      guard parts.count == 3 else {
        refusal = .badRingAddress
        rings[ring].hasAddresses = false
        continue
      }
      rings[ring].isRunning = true
      let setup = VirtioNetDevice.RingSetup(
        size: state.size, base: state.base, descriptors: parts[0], available: parts[1],
        used: parts[2])
      if !model.startRing(ring, setup, pairs: pairsInUse) {
        rings[ring].isRunning = false
        rings[ring].hasAddresses = false
        refusal = .badRingAddress
      }
    }
    return refusal
  }

  private func stop(_ ring: Int) {
    guard rings[ring].isRunning else { return }
    rings[ring].isRunning = false
    rings[ring].base = model.stopRing(ring, pairs: pairsInUse)
  }

  private var usesPackedRings: Bool { model.features.contains(.packedRing) }

  private var pairsInUse: Int {
    (rings.lastIndex(where: \.isRunning) ?? 0) / 2 + 1
  }

  /// A user address as the device's, where all of it lies in one region.
  private func translate(_ address: UInt64, _ byteCount: Int) -> UInt64? {
    for region in regions where address >= region.userAddress {
      let offset = address - region.userAddress
      if offset <= region.byteCount, UInt64(byteCount) <= region.byteCount - offset {
        return region.guestAddress + offset
      }
    }
    return nil
  }
}
