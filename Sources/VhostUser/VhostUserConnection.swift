import CLinux
import Glibc
import PCI
import VFIOUserMessages
import VhostUserMessages

/// The front-end's end of a vhost-user connection: requests, and the wait for what answers them. The first failure
/// ends it: all later requests fail with the same error. One thread at a time.
final class VhostUserConnection {
  let name: String
  let stream: VhostUserStream
  /// Nanoseconds that a back-end has for an answer.
  private let timeout: UInt64
  private(set) var failure: PCIError?
  /// What the back-end offers, vhost's own bits included.
  private(set) var features: UInt64 = 0
  private(set) var protocolFeatures: VhostUserProtocolFeatures = []

  /// The protocol features of which use is made.
  private static let known: VhostUserProtocolFeatures = [
    .multiqueue, .replyAcknowledge, .configuration, .status,
  ]

  /// - Parameter timeout: milliseconds.
  init(descriptor: Int32, closes: Bool, name: String, timeout: Int) {
    self.name = name
    self.timeout = UInt64(max(1, timeout)) * 1_000_000
    stream = VhostUserStream(descriptor: descriptor, closes: closes)
  }

  /// Whether the back-end has protocol features at all: rings then start disabled.
  var hasProtocolFeatures: Bool { features & VhostFeature.protocolFeatures != 0 }

  /// The first words of a connection: who owns it, and which parts of the protocol are used.
  func negotiate() throws(PCIError) {
    features = try number(.getFeatures)
    try send(.setOwner, [])
    guard hasProtocolFeatures else { return }
    let wanted = try offeredProtocolFeatures()
    try send(.setProtocolFeatures, VhostUserNumber(wanted.rawValue).bytes)
    protocolFeatures = wanted
  }

  /// What ``negotiate()`` came to in the process that had the socket before.
  func takeOver() throws(PCIError) {
    features = try number(.getFeatures)
    if hasProtocolFeatures { protocolFeatures = try offeredProtocolFeatures() }
  }

  private func offeredProtocolFeatures() throws(PCIError) -> VhostUserProtocolFeatures {
    VhostUserProtocolFeatures(rawValue: try number(.getProtocolFeatures))
      .intersection(Self.known)
  }

  /// Asks for a 64-bit number.
  func number(_ request: VhostUserRequest) throws(PCIError) -> UInt64 {
    guard let answer = VhostUserNumber(try ask(request, [])) else {
      throw broken("its answer to \(request.name) is no 64-bit number")
    }
    return answer.value
  }

  /// Sends a request that has an answer of its own.
  /// - Returns: the answer's payload.
  func ask(_ request: VhostUserRequest, _ payload: [UInt8]) throws(PCIError) -> [UInt8] {
    if let failure { throw failure }
    let deadline = monotonic_nanoseconds() + timeout
    do {
      try stream.send(
        VhostUserHeader(request: request.rawValue, size: payload.count), payload,
        deadline: deadline)
      return try answer(to: request, deadline)
    } catch {
      throw note(error, request)
    }
  }

  /// Sends a request that has none. With REPLY_ACK the back-end says whether it did it.
  /// - Throws: ``PCIError/peer(_:reason:)`` also where it refuses; the connection stays usable then.
  func send(
    _ request: VhostUserRequest, _ payload: [UInt8], descriptors: [Int32] = []
  ) throws(PCIError) {
    if let failure { throw failure }
    let deadline = monotonic_nanoseconds() + timeout
    let isAcknowledged = protocolFeatures.contains(.replyAcknowledge)
    let answer: [UInt8]
    do {
      try stream.send(
        VhostUserHeader(
          request: request.rawValue, needsReply: isAcknowledged, size: payload.count),
        payload, descriptors: descriptors, deadline: deadline)
      if !isAcknowledged { return }
      answer = try self.answer(to: request, deadline)
    } catch {
      throw note(error, request)
    }
    guard let result = VhostUserNumber(answer) else {
      throw broken("its acknowledgement of \(request.name) is no 64-bit number")
    }
    if result.value != 0 { throw .peer(name, reason: "the back-end refuses \(request.name)") }
  }

  private func answer(
    to request: VhostUserRequest, _ deadline: UInt64
  ) throws(VhostUserError) -> [UInt8] {
    let message = try stream.receive(deadline: deadline)
    guard message.header.isReply, message.header.request == request.rawValue else {
      throw .malformed(
        "\(message.header.isReply ? "an answer to" : "the request") \(message.header.request), where \(request.name) was to be answered"
      )
    }
    guard message.descriptors.sent == 0 else {
      throw .malformed("descriptors with its answer to \(request.name)")
    }
    return message.payload
  }

  /// Whether the back-end has gone or talks out of turn; without a message, so that it holds nothing up.
  func hasFailed() -> Bool {
    if failure == nil && stream.isDisturbed { failure = .gone(name) }
    return failure != nil
  }

  /// Tells why an answer cannot be used, and gives the connection up.
  func broken(_ reason: String) -> PCIError {
    let error = PCIError.peer(
      name, reason: "the back-end breaks the vhost-user protocol: \(reason)")
    failure = error
    return error
  }

  private func note(_ error: VhostUserError, _ request: VhostUserRequest) -> PCIError {
    let result: PCIError
    switch error {
    case .closed: result = .gone(name)
    case .timeout:
      result = .peer(
        name,
        reason:
          "no answer to \(request.name) within \(timeout / 1_000_000) ms: is it a vhost-user back-end, and is it free?"
      )
    case .system(let call, let errno): result = .system(call: call, errno: errno)
    case .malformed(let reason): return broken(reason)
    }
    failure = result
    return result
  }
}
