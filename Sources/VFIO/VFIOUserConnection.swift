import CLinux
import Glibc
import Memory
import PCI
import Synchronization
import VFIOUserMessages

/// The client's end of a vfio-user connection: a command, and the wait for its reply, while commands of the server
/// that come in between are answered. Any thread for accesses, one after the other; one thread before the first of them.
final class VFIOUserConnection {
  let name: String
  let stream: MessageStream
  /// Nanoseconds that a server has for an answer.
  let timeout: UInt64
  /// Most descriptors that the server takes in one message.
  var maximumDescriptors: Int
  /// Most bytes of data in one access.
  var maximumDataByteCount = MessageLimits.dataByteCount
  var pageSizes: UInt64 = 4096
  /// Memory that the server may read and write by message; it gets an errno for everything else.
  var served: [DMARange] = []
  /// What the server asked for and was refused.
  private(set) var refusedRequests = 0

  /// Held for an exchange or a write, so that each reply comes to whoever asked.
  private let exclusion = Mutex(())
  private var identifier: UInt16
  private let firstIdentifier: UInt16
  private var failure: PCIError?
  private var posted: UInt64 = 0

  /// - Parameter firstIdentifier: 0 or 0x8000. Two processes that use one socket in turn take half of the message
  ///   identifiers each, so that neither takes an old reply for its own.
  init(
    descriptor: Int32, closes: Bool, name: String, timeout: UInt64, maximumDescriptors: Int,
    firstIdentifier: UInt16
  ) {
    self.name = name
    self.stream = MessageStream(descriptor: descriptor, closes: closes)
    self.timeout = timeout
    self.maximumDescriptors = maximumDescriptors
    self.firstIdentifier = firstIdentifier
    self.identifier = firstIdentifier
  }

  private func next() -> UInt16 {
    identifier = firstIdentifier | (identifier &+ 1) & 0x7fff
    return identifier
  }

  /// Sends a command and waits for its reply.
  /// - Throws: ``PCIError/gone(_:)`` once the server has closed, broken the protocol or been silent for too long: the
  ///   connection stays so.
  func exchange(
    _ command: VFIOUserCommand, _ payload: [UInt8] = [], descriptors: [Int32] = []
  ) throws(PCIError) -> Message {
    try exclusion.withLock { _ throws(PCIError) in
      try exchangeAlone(command, payload, descriptors)
    }
  }

  private func exchangeAlone(
    _ command: VFIOUserCommand, _ payload: [UInt8], _ descriptors: [Int32]
  ) throws(PCIError) -> Message {
    if let failure { throw failure }
    let deadline = monotonic_nanoseconds() + timeout
    let identifier = next()
    do {
      try stream.send(
        MessageHeader(identifier: identifier, command: command.rawValue, size: 0), payload,
        descriptors: descriptors, deadline: deadline)
      return try reply(to: identifier, command, deadline: deadline)
    } catch {
      throw note(error)
    }
  }

  private func reply(
    to identifier: UInt16, _ command: VFIOUserCommand, deadline: UInt64
  ) throws(MessageError) -> Message {
    while true {
      let message = try stream.receive(deadline: deadline)
      // One that sends without a pause never lets us wait.
      guard monotonic_nanoseconds() < deadline else { throw .timeout }
      if message.header.isCommand {
        try answer(message, deadline: deadline)
      } else if message.header.identifier == identifier {
        if message.header.flags.contains(.error) {
          throw .refused(command: command.rawValue, errno: message.header.errno)
        }
        return message
      }
      // Any other reply is to a write that asked for none, or to a process that had the socket before.
    }
  }

  /// Writes up to 8 bytes of a region and does not wait. The server works commands off in order, so that a later
  /// exchange sees the effect.
  func post(region: UInt32, offset: UInt64, width: Int, value: UInt64) {
    exclusion.withLock { _ in
      postAlone(region: region, offset: offset, width: width, value: value)
    }
  }

  private func postAlone(region: UInt32, offset: UInt64, width: Int, value: UInt64) {
    guard failure == nil else { return }
    do {
      posted &+= 1
      // A server that replies all the same must not come to a stop over replies that nobody reads.
      if posted % 64 == 0 { try serveMessages() }
      try stream.sendRegionWrite(
        identifier: firstIdentifier, flags: .noReply, region: region, offset: offset, width: width,
        value: value, deadline: monotonic_nanoseconds() + timeout)
    } catch {
      _ = note(error)
    }
  }

  /// Answers what the server has asked in the meantime, without waiting.
  func serveRequests() throws(PCIError) {
    try exclusion.withLock { _ throws(PCIError) in
      if let failure { throw failure }
      do throws(MessageError) {
        try serveMessages()
      } catch {
        throw note(error)
      }
    }
  }

  /// As many as there are, or as a server that keeps the rules can have on the way.
  private func serveMessages() throws(MessageError) {
    for _ in 0..<1024 {
      guard let message = try stream.poll() else { return }
      if message.header.isCommand {
        try answer(message, deadline: monotonic_nanoseconds() + timeout)
      }
    }
  }

  private func note(_ error: MessageError) -> PCIError {
    let result: PCIError
    switch error {
    case .refused(let command, let errno):
      let call = VFIOUserCommand(rawValue: command).map { "\($0)" } ?? "\(command)"
      return .system(call: "vfio-user \(call)", errno: Int32(truncatingIfNeeded: errno))
    case .closed, .timeout: result = .gone(name)
    case .system(let call, let errno): result = .system(call: call, errno: errno)
    case .malformed(let reason):
      result = .peer(name, reason: "the server breaks the vfio-user protocol: \(reason)")
    }
    failure = result
    return result
  }

  /// Tells why an answer cannot be used, and gives the connection up.
  func broken(_ reason: String) -> PCIError {
    exclusion.withLock { _ in note(.malformed(reason)) }
  }

  private func answer(_ message: borrowing Message, deadline: UInt64) throws(MessageError) {
    let command = VFIOUserCommand(rawValue: message.header.command)
    var errno: Int32 = ENOTSUP
    var payload: [UInt8] = []
    if command == .dmaRead || command == .dmaWrite {
      var reader = ByteReader(message.payload)
      errno = EINVAL
      if let access = DMAAccessMessage(&reader), access.count <= MessageLimits.dataByteCount {
        let count = Int(access.count)
        if let memory = memory(at: access.address, byteCount: count) {
          var writer = ByteWriter(reserving: DMAAccessMessage.byteCount + count)
          if command == .dmaRead {
            access.write(to: &writer)
            // In bounds: `memory` was found to have `count` bytes.
            writer.write(UnsafeRawBufferPointer(start: memory, count: count))
            errno = 0
          } else if let data = reader.readBytes(count) {
            UnsafeMutableRawBufferPointer(start: memory, count: count).copyBytes(from: data)
            DMAAccessMessage(address: access.address, count: 0).write(to: &writer)
            errno = 0
          }
          payload = writer.bytes
        }
      }
    }
    if errno != 0 { refusedRequests += 1 }
    if message.header.flags.contains(.noReply) { return }
    try stream.send(
      MessageHeader(
        identifier: message.header.identifier, command: message.header.command, size: 0,
        flags: errno == 0 ? .reply : [.reply, .error], errno: UInt32(errno)),
      errno == 0 ? payload : [], deadline: deadline)
  }

  private func memory(at address: UInt64, byteCount: Int) -> UnsafeMutableRawPointer? {
    for range in served where address >= range.iova {
      let offset = address - range.iova
      guard offset <= UInt64(range.byteCount),
        UInt64(byteCount) <= UInt64(range.byteCount) - offset
      else { continue }
      return range.address + Int(offset)
    }
    return nil
  }
}

extension VFIOUserConnection {
  /// Proposes our version and takes what the server answers.
  func negotiate() throws(PCIError) {
    let proposal = VersionMessage(
      major: VersionMessage.major, minor: VersionMessage.minor,
      capabilities: .init(
        maximumDescriptors: 8, maximumDataByteCount: MessageLimits.dataByteCount))
    let reply = try exchange(.version, proposal.bytes)
    do {
      let version = try VersionMessage(reply.payload)
      guard version.major == proposal.major, version.minor <= proposal.minor else {
        throw MessageError.malformed(
          "it speaks version \(version.major).\(version.minor), not \(proposal.major).\(proposal.minor)"
        )
      }
      let told = version.capabilities
      maximumDescriptors = min(
        told.maximumDescriptors ?? MessageLimits.assumedDescriptorCount,
        MessageLimits.descriptorCount)
      maximumDataByteCount = min(
        told.maximumDataByteCount ?? MessageLimits.dataByteCount, MessageLimits.dataByteCount)
      pageSizes = told.pageSizes ?? 4096
    } catch let error as MessageError {
      throw note(error)
    } catch {
      throw broken("\(error)")
    }
  }
}
