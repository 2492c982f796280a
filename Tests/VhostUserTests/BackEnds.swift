import CLinux
import Glibc
import VFIOUserMessages
import VhostUserServer
import VirtioNetDevice

@testable import VhostUserMessages

/// A name for a socket that nobody else uses.
func socketPath() -> String {
  "/tmp/martlet-vhost-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
}

private func listen(at path: String) -> Int32 {
  let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
  _ = linux_bind_unix(descriptor, path)
  Glibc.listen(descriptor, 4)
  return descriptor
}

/// The model behind a socket, served from a thread of its own.
final class ServedBackEnd: @unchecked Sendable {
  let path: String
  let server: VhostUserServer
  private let stop = eventfd(0, Int32(EFD_CLOEXEC))
  private let listening: Int32
  private let wire: Int32
  private var thread = pthread_t()

  init(_ model: VirtioNetDevice, wire: Int32 = -1, path: String = socketPath()) {
    self.path = path
    self.wire = wire
    listening = listen(at: path)
    server = VhostUserServer(model: model, listening: listening)
    let box = Unmanaged.passRetained(self)
    pthread_create(
      &thread, nil,
      { argument in
        let served = Unmanaged<ServedBackEnd>.fromOpaque(argument!).takeRetainedValue()
        _ = served.server.run(wire: served.wire, stop: served.stop)
        return nil
      }, box.toOpaque())
  }

  /// Ends the thread; the server and its model can be looked at afterwards.
  func end() {
    var one: UInt64 = 1
    _ = write(stop, &one, 8)
    pthread_join(thread, nil)
    server.end()
    close(listening)
    close(stop)
    unlink(path)
  }

  /// Options for a model that is to be served.
  static var options: VirtioNetDevice.Options {
    var options = VirtioNetDevice.Options()
    options.withheld = VhostUserServer.notCarried
    return options
  }
}

/// A back-end that answers one front-end by a script.
final class ScriptedBackEnd: @unchecked Sendable {
  /// The bytes to send for a message; nil closes the connection.
  typealias Script = @Sendable (VhostUserHeader, [UInt8]) -> [UInt8]?

  let path = socketPath()
  private let listening: Int32
  private let script: Script
  /// A descriptor that goes with each answer.
  private let gift: Int32?
  private var thread = pthread_t()

  init(gift: Int32? = nil, _ script: @escaping Script) {
    self.script = script
    self.gift = gift
    listening = listen(at: path)
    let box = Unmanaged.passRetained(self)
    pthread_create(
      &thread, nil,
      { argument in
        Unmanaged<ScriptedBackEnd>.fromOpaque(argument!).takeRetainedValue().run()
        return nil
      }, box.toOpaque())
  }

  private func run() {
    let socket = accept(listening, nil, nil)
    let stream = VhostUserStream(descriptor: socket, closes: true)
    while let message = try? stream.receive(deadline: monotonic_nanoseconds() + 30_000_000_000) {
      guard let bytes = script(message.header, message.payload) else { return }
      if bytes.isEmpty { continue }
      let gifts = gift.map { [$0] } ?? []
      _ = linux_send_descriptors(socket, bytes, bytes.count, gifts, Int32(gifts.count), 0)
    }
  }

  /// After the front-end has gone.
  func end() {
    shutdown(listening, Int32(SHUT_RDWR))
    pthread_join(thread, nil)
    close(listening)
    unlink(path)
  }

  static func reply(_ request: UInt32, _ payload: [UInt8], size: Int? = nil) -> [UInt8] {
    var writer = ByteWriter()
    VhostUserHeader(request: request, isReply: true, size: size ?? payload.count)
      .write(to: &writer)
    writer.write(payload)
    return writer.bytes
  }

  /// What a well-behaved back-end with all protocol features says; 0 acknowledges.
  static func good(_ header: VhostUserHeader, _ payload: [UInt8]) -> [UInt8] {
    func number(_ value: UInt64) -> [UInt8] {
      reply(header.request, VhostUserNumber(value).bytes)
    }
    switch VhostUserRequest(rawValue: header.request) {
    case .getFeatures: return number(1 << 32 | 1 << 5 | VhostFeature.protocolFeatures)
    case .getProtocolFeatures: return number(1 << 0 | 1 << 3 | 1 << 9 | 1 << 16)
    case .getQueueCount: return number(1)
    case .getStatus: return number(0xb)
    case .getVringBase: return reply(header.request, payload)
    case .getConfiguration:
      return reply(
        header.request,
        VhostUserConfiguration(
          offset: 0, data: [0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0xdc, 5]
        ).bytes)
    default: return header.needsReply ? number(0) : []
    }
  }
}
