import CLinux
import EmulatedPCI
import Glibc
import PCI
import VFIOUserMessages

/// One client of a served device, from its connection to its end. What it gave (memory, eventfds) goes with it.
final class ClientSession {
  /// Nanoseconds that a client has to read a reply.
  private static let sendTimeout: UInt64 = 1_000_000_000

  let stream: MessageStream
  let model: EmulatedFunction
  let memory: DMATable
  let interrupts: ClientInterrupts
  let messageDMA: MessageDMA
  /// Nanoseconds that a client has to say its version: one that holds the connection and says nothing would keep all
  /// others out.
  private static let versionTimeout: UInt64 = 2_000_000_000
  private let start = monotonic_nanoseconds()
  private(set) var isNegotiated = false
  private(set) var commands: UInt64 = 0

  init(descriptor: Int32, model: EmulatedFunction) {
    stream = MessageStream(descriptor: descriptor)
    self.model = model
    memory = DMATable(model.iommu)
    interrupts = ClientInterrupts(model)
    messageDMA = MessageDMA(stream)
    model.iommu.messages = messageDMA
  }

  /// Why a client has to go.
  enum End: Error {
    case left
    case refused(Refusals.Reason)
  }

  /// Works off what the client has sent, up to `limit` messages.
  /// - Returns: how many there were.
  func service(limit: Int, _ refusals: inout Refusals) throws(End) -> Int {
    for done in 0..<limit {
      if let failure = messageDMA.failure {
        if failure == .closed { throw .left }
        throw .refused(.failedDMAMessage)
      }
      if let held = messageDMA.takeHeld() {
        if let message = held.message.take() { try handle(message, &refusals) }
        continue
      }
      let next: Message?
      do {
        next = try stream.poll()
      } catch {
        throw error == .closed && !stream.hasPart ? .left : .refused(.malformedMessage)
      }
      guard let message = next else {
        if !isNegotiated && monotonic_nanoseconds() - start > Self.versionTimeout {
          throw .refused(.silentClient)
        }
        return done
      }
      try handle(message, &refusals)
    }
    return limit
  }

  private func handle(_ message: consuming Message, _ refusals: inout Refusals) throws(End) {
    commands += 1
    guard message.header.isCommand else { throw .refused(.unexpectedReply) }
    guard let command = VFIOUserCommand(rawValue: message.header.command) else {
      refusals.count(.unknownCommand)
      return try reply(message.header, errno: EINVAL)
    }
    guard isNegotiated != (command == .version) else {
      try? reply(message.header, errno: EINVAL)
      throw .refused(.outOfOrder)
    }
    // Only a map and a set of eventfds come with descriptors, which are closed with the message otherwise.
    if message.descriptors.sent > 0 && command != .dmaMap && command != .setInterrupts {
      refusals.count(.badDescriptors)
      return try reply(message.header, errno: EINVAL)
    }
    // One that this process had no number for must not pass for memory that came without.
    if !message.descriptors.areComplete {
      refusals.count(.lostDescriptors)
      return try reply(message.header, errno: EMFILE)
    }
    switch command {
    case .version: try negotiate(message)
    case .dmaMap:
      guard let map = DMAMapMessage(message.payload) else {
        refusals.count(.badPayload)
        return try reply(message.header, errno: EINVAL)
      }
      guard message.descriptors.sent <= 1 else {
        refusals.count(.badDescriptors)
        return try reply(message.header, errno: EINVAL)
      }
      let error = memory.add(map, descriptor: message.descriptors.peek(0))
      if error != 0 { refusals.count(.badDMAMap) }
      try reply(message.header, errno: error)
    case .dmaUnmap:
      guard let unmap = DMAUnmapMessage(message.payload) else {
        refusals.count(.badPayload)
        return try reply(message.header, errno: EINVAL)
      }
      let error = memory.remove(unmap)
      if error != 0 { refusals.count(.badDMAUnmap) }
      try reply(message.header, errno: error, unmap.bytes)
    case .setInterrupts:
      guard let set = SetInterruptsMessage(message.payload) else {
        refusals.count(.badPayload)
        return try reply(message.header, errno: EINVAL)
      }
      let error = interrupts.set(set, &message.descriptors)
      if error != 0 { refusals.count(.badInterrupts) }
      try reply(message.header, errno: error)
    case .deviceReset:
      model.reset()
      try reply(message.header)
    case .deviceInfo, .regionInfo, .interruptInfo:
      try describe(command, message, &refusals)
    case .regionRead, .regionWrite, .regionWriteMultiple:
      try access(command, message, &refusals)
    case .regionIODescriptors, .dmaRead, .dmaWrite, .dirtyPages, .deviceFeature, .migrationDataRead,
      .migrationDataWrite:
      refusals.count(.unknownCommand)
      try reply(message.header, errno: ENOTSUP)
    }
  }

  func reply(_ command: MessageHeader, errno: Int32 = 0, _ payload: [UInt8] = []) throws(End) {
    if command.flags.contains(.noReply) { return }
    let header = MessageHeader(
      identifier: command.identifier, command: command.command, size: 0,
      flags: errno == 0 ? .reply : [.reply, .error], errno: UInt32(errno))
    do {
      try stream.send(
        header, errno == 0 ? payload : [], deadline: monotonic_nanoseconds() + Self.sendTimeout)
    } catch {
      throw error == .timeout ? .refused(.blockedClient) : .left
    }
  }

  private func negotiate(_ message: borrowing Message) throws(End) {
    let proposal: VersionMessage
    do {
      proposal = try VersionMessage(message.payload)
    } catch {
      try? reply(message.header, errno: EINVAL)
      throw .refused(.badVersion)
    }
    guard proposal.major == VersionMessage.major else {
      try? reply(message.header, errno: EINVAL)
      throw .refused(.badVersion)
    }
    let asked = proposal.capabilities
    messageDMA.maximumDataByteCount = min(
      asked.maximumDataByteCount ?? MessageLimits.dataByteCount, MessageLimits.dataByteCount)
    // Beyond the two that every implementation tells, only what the client has named itself.
    let answer = VersionMessage(
      major: VersionMessage.major, minor: min(proposal.minor, VersionMessage.minor),
      capabilities: .init(
        maximumDescriptors: MessageLimits.descriptorCount,
        maximumDataByteCount: MessageLimits.dataByteCount,
        maximumDMAMaps: asked.maximumDMAMaps.map { _ in MessageLimits.dmaMapCount },
        pageSizes: asked.pageSizes.map { _ in 4096 },
        writeMultiple: asked.writeMultiple.map { _ in true }))
    isNegotiated = true
    try reply(message.header, answer.bytes)
  }

  private func reply(_ command: MessageHeader, _ payload: [UInt8]) throws(End) {
    try reply(command, errno: 0, payload)
  }
}
